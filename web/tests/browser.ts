/** Chromium on the built page, which the fake server hands out with the real one's policy, or a real. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import { chromium, type Browser, type Page } from "playwright-core";
import { preview, type PreviewServer } from "vite";
import { expect } from "vitest";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

export interface Stage {
  base: string;
  /** Open a page of its own, logged in as the sample user or with nobody known to the server. */
  open: (world: "empty" | "populated", options?: Options) => Promise<Page>;
  close: () => Promise<void>;
}

interface Options {
  width?: number;
  height?: number;
  scheme?: "light" | "dark";
}

/** @param url of a server that runs; without one, that of dev/ is started. */
export async function makeStage(url = ""): Promise<Stage> {
  if (url) return stageOf(url, () => Promise.resolve());
  const server = await preview({ preview: { port: 0, host: "127.0.0.1" }, logLevel: "error" });
  const base = server.resolvedUrls!.local[0]!.replace(/\/$/, "");
  return stageOf(base, enter, () => closed(server));
}

/** Let the server of dev/ begin anew, and log in where it has users. */
async function enter(page: Page, world: string): Promise<void> {
  await page.request.get(`/dev/${world}`);
  if (world === "populated") {
    await page.request.post("/api/v1/session", { data: { name: "ada", password: "citations" } });
  }
}

async function stageOf(
  base: string,
  prepare: (page: Page, world: string) => Promise<void>,
  end = () => Promise.resolve(),
): Promise<Stage> {
  const browser = await launch();
  return {
    base,
    open: async (world, options = {}) => {
      const page = await open(browser, base, options);
      await prepare(page, world);
      return page;
    },
    close: async () => {
      await browser.close();
      await end();
    },
  };
}

function launch(): Promise<Browser> {
  const executablePath =
    process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
  return chromium.launch({ executablePath, args });
}

async function closed(server: PreviewServer): Promise<void> {
  if ("closeAllConnections" in server.httpServer) server.httpServer.closeAllConnections();
  await server.close();
}

async function open(
  browser: Browser,
  base: string,
  { width = 1280, height = 900, scheme = "light" }: Options,
): Promise<Page> {
  const context = await browser.newContext({
    baseURL: base,
    viewport: { width, height },
    colorScheme: scheme,
    locale: "en-US",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  return page;
}

/** Collect what the page complains of: its own errors, the policy's refusals, foreign requests. */
export function complaints(page: Page, base: string): string[] {
  const found: string[] = [];
  page.on("pageerror", (error) => found.push(error.message));
  page.on("console", (message) => {
    // A refusal is an answer that the page shows.
    const isRefusal = message.text().includes("responded with a status of 4");
    if (message.type() === "error" && !isRefusal) found.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(base) && !url.startsWith("data:")) found.push(url);
  });
  return found;
}

/** Check a page by axe, all of its rules. */
export async function expectAccessible(page: Page): Promise<void> {
  // As a debugger may, past the policy of the page.
  await page.evaluate(readFileSync(AXE, "utf8"));
  const violations = await page.evaluate(async () => {
    const { axe } = window as unknown as { axe: typeof import("axe-core") };
    const result = await axe.run(document, { iframes: false });
    return result.violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]);
  });
  expect(violations).toEqual([]);
}
