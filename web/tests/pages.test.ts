/** Each page by axe, in light and dark, wide and narrow; by keyboard; and where something fails. */

import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { complaints, expectAccessible, makeStage, type Stage } from "./browser";

let stage: Stage;
beforeAll(async () => {
  stage = await makeStage();
});
afterAll(() => stage.close());

const PAGES = {
  "/environment": "Environment",
  "/new": "New training",
  "/runs": "Runs",
  "/runs/r0001": "hepth-first",
  "/runs/nowhere": "No such run",
  "/runs/compare?ids=r0002,r0004": "Compare",
  "/runs/compare": "Compare",
  "/models": "Models",
  "/try": "Try it",
  "/admin": "Admin",
  "/password": "Change the password",
  "/nowhere": "No such page",
  "/live?run=r0003": "board-try",
};
const VIEWS = [
  { scheme: "light", width: 1280 },
  { scheme: "dark", width: 390 },
] as const;

describe.each(VIEWS)("in $scheme at $width px", (view) => {
  test("pages satisfy axe, fit, and ask nobody else for anything", async () => {
    const page = await stage.open("populated", view);
    const found = complaints(page, stage.base);
    for (const [path, heading] of Object.entries(PAGES)) {
      await page.goto(path);
      await page.getByRole("heading", { level: 1, name: heading }).waitFor();
      await page.waitForLoadState("networkidle").catch(() => {});
      await expectAccessible(page);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      expect([path, width]).toEqual([path, view.width]);
    }
    expect(found).toEqual([]);
  });

  test("pages of nobody satisfy axe", async () => {
    const page = await stage.open("empty", view);
    for (const path of ["/", "/setup?token=first", "/setup?token=old"]) {
      await page.goto(path);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await expectAccessible(page);
    }
  });
});

test("the page of one run leads nowhere else and says how to see it again", async () => {
  const page = await stage.open("populated");
  await page.goto("/live?run=r0001");
  await page.getByText("citeflow runs show --local --open hepth-first").waitFor();
  expect(await page.getByRole("link", { name: "citeflow" }).count()).toBe(0);
  expect(await page.getByRole("link", { name: "Open it alone" }).count()).toBe(0);
  await page.goto("/live");
  await page.getByRole("heading", { name: "No run is named" }).waitFor();
});

test("a wrong password is told, and a right one leads to where one wanted to", async () => {
  const page = await stage.open("populated");
  await page.request.delete("/api/v1/session");
  await page.goto("/models");
  await page.getByLabel("Name").fill("ada");
  await page.getByLabel("Password").fill("guess");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByText("Name or password is wrong").waitFor();
  await page.getByLabel("Password").fill("citations");
  await page.getByLabel("Password").press("Enter");
  await page.getByRole("heading", { level: 1, name: "Models" }).waitFor();
});

test("the keyboard reaches the content first", async () => {
  const page = await stage.open("populated");
  await page.goto("/environment");
  await page.getByRole("button", { name: "Remove" }).waitFor();
  await page.keyboard.press("Tab");
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe(
    "Skip to the content",
  );
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("content");
});

const DIALOGS = [
  ["/environment", "Remove"],
  ["/runs/r0001", "Delete"],
  ["/models", "Promote version 2"],
  ["/models", "Take down"],
  ["/admin", "Add a user"],
] as const;

describe.each(VIEWS)("in $scheme at $width px", (view) => {
  test.each(DIALOGS)(
    "the dialog of %s behind %s satisfies axe, keeps the focus and gives it back",
    async (path, name) => {
      const page = await stage.open("populated", view);
      await page.goto(path);
      const opener = page.getByRole("button", { name }).first();
      await opener.press("Enter");
      await page.getByRole("dialog").waitFor();
      await expectAccessible(page);
      for (let times = 0; times < 8; times++) {
        await page.keyboard.press("Tab");
        expect(await page.evaluate(isOutsideOfDialog)).toBe(false);
      }
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
      expect(await opener.evaluate((element) => element === document.activeElement)).toBe(true);
    },
  );
});

/** Tell whether something of the page behind a dialog has the focus; the browser's own may. */
function isOutsideOfDialog(): boolean {
  const at = document.activeElement;
  return at !== null && at !== document.body && !document.querySelector("dialog")?.contains(at);
}

test("the keyboard alone does the story, and what has the focus is seen", async () => {
  const page = await stage.open("empty");
  await page.goto("/setup?token=first");
  await reach(page, "textbox", "Name");
  await page.keyboard.type("ada");
  await reach(page, "textbox", "New password");
  await page.keyboard.type("a few good words");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Environment" }).waitFor();
  await reach(page, "radio", /Small/);
  await page.keyboard.press("ArrowDown");
  await reach(page, "button", "Take size M");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "New training" }).waitFor();
  await reach(page, "button", "Start the training");
  await page.keyboard.press("Enter");
  await page.getByText("Running", { exact: true }).waitFor();
  await reach(page, "button", "Cancel");
  await page.keyboard.press("Enter");
  await page.getByText("Stopped").waitFor();
  await reach(page, "button", "Resume");
  await page.keyboard.press("Enter");
  await page.getByText("Running", { exact: true }).waitFor();
  await page.request.get("/dev/finish");
  await page.getByText("Succeeded").waitFor();
  await reach(page, "link", "Promote");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Models" }).waitFor();
  await reach(page, "button", "Promote version 1");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await reach(page, "button", "Promote");
  await page.keyboard.press("Enter");
  await page.getByRole("cell", { name: "champion" }).waitFor();
  await page.goto("/try");
  await page.getByText("For example").waitFor();
  await reach(page, "button", "Black holes as strings");
  await page.keyboard.press("Enter");
  await page
    .getByText(/Cited together with/)
    .first()
    .waitFor();
  await expectAccessible(page);
});

/** Press Tab until something has the focus, and check that its outline, or its label's, is seen. */
async function reach(
  page: Page,
  role: "button" | "link" | "radio" | "textbox",
  name: string | RegExp,
): Promise<void> {
  const found = page.getByRole(role, { name, exact: true });
  const wanted = (await page.getByRole("dialog").count())
    ? page.getByRole("dialog").getByRole(role, { name, exact: true })
    : found;
  await wanted.waitFor();
  for (let times = 0; times < 80; times++) {
    if (await wanted.evaluate((element) => element === document.activeElement)) break;
    await page.keyboard.press("Tab");
  }
  const isSeen = await wanted.evaluate((element) => {
    const shown = [element, element.closest("label")].filter((each) => each !== null);
    const hasFocus = element === document.activeElement;
    return hasFocus && shown.some((each) => getComputedStyle(each).outlineStyle !== "none");
  });
  expect([String(name), isSeen]).toEqual([String(name), true]);
}

test("the log of a run shows the lines of one rank alone", async () => {
  const page = await stage.open("populated");
  const made = await page.request.post("/api/v1/runs", {
    data: { task: "citation", dataset: "synthetic", workers: 2, settings: { "train.minutes": 1 } },
  });
  const { id } = await made.json();
  await page.request.get("/dev/finish");
  await page.goto(`/runs/${id}`);
  await page.getByRole("radio", { name: "rank 1" }).check();
  const log = await page.getByRole("log").textContent();
  expect(log).toContain("rank 1:");
  expect(log).not.toContain("rank 0:");
});

test("a link moves the focus to the heading of its page", async () => {
  const page = await stage.open("populated");
  await page.goto("/runs");
  await page.getByRole("link", { name: "Models" }).press("Enter");
  await page.getByRole("heading", { level: 1, name: "Models" }).waitFor();
  expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("H1");
});

test("a setting out of its range is told beside it", async () => {
  const page = await stage.open("populated");
  await page.goto("/new");
  await page.getByText("Settings", { exact: true }).click();
  await page.getByLabel("Layers").fill("99");
  await page.getByLabel("Layers").and(page.locator("[aria-invalid=true]")).waitFor();
  await page.getByText("model.num_layers is at most 10: 99.").first().waitFor();
});

test.each(VIEWS)("a model of one's own is taken or refused, in $scheme", async (view) => {
  const page = await stage.open("populated", view);
  const found = complaints(page, stage.base);
  await page.goto("/new");
  await page.getByRole("radio", { name: "Built in" }).focus();
  await page.keyboard.press("ArrowRight");
  expect(await page.getByRole("radio", { name: "Your weights" }).isChecked()).toBe(true);
  const start = page.getByRole("button", { name: "Start the training" });
  expect(await start.isDisabled()).toBe(true);
  await page.getByRole("radio", { name: /first.safetensors/ }).check();
  await page.getByText("encoder.layers.0.weight [128, 128] F32").waitFor();
  await expectAccessible(page);
  const zone = page.getByLabel(/Drop a file here/);
  await zone.setInputFiles(file("model.pt"));
  await page.getByText("Neither weights nor code, and never read: a zip").waitFor();
  await zone.setInputFiles(file("net.py"));
  await page.getByRole("radio", { name: /net.py/ }).waitFor();
  expect(await page.getByRole("radio", { name: "Your code" }).isChecked()).toBe(true);
  expect(await page.getByRole("radio", { name: /net.py/ }).isChecked()).toBe(true);
  expect(await page.getByRole("radio", { name: /first.safetensors/ }).count()).toBe(0);
  await expectAccessible(page);
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  expect(width).toBe(view.width);
  await page.getByRole("button", { name: "Delete" }).first().press("Enter");
  await page.getByText("Runs that were made with it keep a copy.").waitFor();
  await page.keyboard.press("Escape");
  const sent = page.waitForRequest((each) => each.url().endsWith("/api/v1/runs"));
  await start.press("Enter");
  expect((await sent).postDataJSON().settings).toMatchObject({ "model.code": "upload:u4" });
  expect(found).toEqual([]);
});

test("code that cannot run is told before it is sent", async () => {
  const page = await stage.open("populated");
  await page.goto("/new");
  await page.getByRole("radio", { name: /Images/ }).check();
  await page.getByRole("radio", { name: "Your code" }).check();
  await page.getByText("Code cannot run here: bubblewrap is not installed.").waitFor();
  await expectAccessible(page);
  expect(await page.getByRole("button", { name: "Start the training" }).isDisabled()).toBe(true);
});

test("a model with code of its own is neither deployed nor asked", async () => {
  const page = await stage.open("populated");
  await page.goto("/models");
  await page.getByText("Your own code: it can be neither deployed nor asked.").waitFor();
  expect(await page.getByRole("button", { name: /Deploy version 4/ }).count()).toBe(0);
  expect(await page.getByRole("button", { name: /Deploy version 2/ }).count()).toBe(1);
  await expectAccessible(page);
  const answer = await (await page.request.get("/api/v1/models")).json();
  for (const { versions } of answer.models) for (const each of versions) each.has_code = true;
  answer.models[0].deployment = null;
  await page.route("**/api/v1/models", (route) => route.fulfill({ json: answer }));
  await page.goto("/try");
  await page.getByRole("heading", { name: "citation cannot be asked" }).waitFor();
  expect(await page.getByRole("button", { name: "Find citations" }).count()).toBe(0);
  await expectAccessible(page);
});

const file = (name: string) => ({
  name,
  mimeType: "application/octet-stream",
  buffer: Buffer.from("content"),
});

test("a stream that breaks off goes on after its last event", async () => {
  const page = await stage.open("populated");
  const asked: string[] = [];
  let isDown = false;
  await page.route("**/events*", (route) => {
    asked.push(new URL(route.request().url()).search);
    return isDown ? route.fulfill({ status: 502, body: "down" }) : route.continue();
  });
  const made = await page.request.post("/api/v1/runs", {
    data: { task: "citation", dataset: "synthetic", workers: 1, settings: { "train.minutes": 1 } },
  });
  const { id } = await made.json();
  isDown = true;
  await page.goto(`/runs/${id}`);
  await page.getByText("The connection is lost").waitFor();
  isDown = false;
  await page.getByRole("img", { name: /^Loss by step/ }).waitFor();
  await page.getByText("Live", { exact: true }).waitFor();
  expect(asked.length).toBeGreaterThan(1);
});

test("a server that does not answer is told, with a way to try again", async () => {
  const page = await stage.open("populated");
  await page.route("**/api/v1/models", (route) => route.abort());
  await page.goto("/models");
  await page.getByText("The server does not answer").waitFor({ timeout: 30_000 });
  await page.unroute("**/api/v1/models");
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("heading", { level: 2, name: "citation" }).waitFor();
});
