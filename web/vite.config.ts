import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

import { fakeServer } from "./dev/fake.ts";

/** Address of a real server to develop against; without it, dev/fake.ts answers. */
const server = process.env.CITEFLOW_PLATFORM;

export default defineConfig({
  plugins: [react(), server ? null : fakeServer()],
  server: server ? { proxy: { "/api": server } } : {},
  build: {
    outDir: "../src/citeflow/platform/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    license: { fileName: "licenses.txt" },
  },
});
