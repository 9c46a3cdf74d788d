/**
 * What a new user does, from the link of the first account to citations with reasons: on the server
 * of dev/ with its made-up data, or on the one that $CITEFLOW_STORY describes, whose trainings are
 * real (tests/platform/test_story.py starts it, on this machine and on a cluster in memory).
 */

import { readFileSync } from "node:fs";

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { complaints, expectAccessible, makeStage, type Stage } from "./browser";

interface World {
  /** Address of the server; empty for the one of dev/. */
  url: string;
  /** Path of the link that makes the first account. */
  setup: string;
  /** Of the size that has two cores. */
  size: "M" | "L";
  /** A file with citations, as its path and what the server says of it. */
  file: string;
  summary: string;
  minutes: string;
  /** A word of titles. */
  word: string;
  /** A POST to it kills the server, and starts it again. */
  restart: string;
  /** Folder for pictures of each page, wide, narrow and dark; empty for none. */
  pictures: string;
}

const MADE_UP: World = {
  url: "",
  setup: "/setup?token=first",
  size: "M",
  file: "hepth.zip",
  summary: "27,770 papers, 352,807 citations",
  minutes: "4",
  word: "brane",
  restart: "",
  pictures: "",
};
const told = process.env.CITEFLOW_STORY;
const WORLD: World = told ? JSON.parse(readFileSync(told, "utf8")) : MADE_UP;
const IS_REAL = WORLD.url !== "";
const WAIT_MS = IS_REAL ? 900_000 : 60_000;

let stage: Stage;
beforeAll(async () => {
  stage = await makeStage(WORLD.url);
});
afterAll(() => stage.close());

test("a new user sets up, trains, watches, compares, promotes and asks", async () => {
  const page = await stage.open("empty");
  page.setDefaultTimeout(WAIT_MS);
  const found = complaints(page, stage.base);
  await setUp(page);
  await takeEnvironment(page);
  if (!IS_REAL) await chooseTooMuch(page);
  await train(page, "first");
  await watchCancelAndResume(page);
  if (IS_REAL) {
    expect(found).toEqual([]);
    await outlive(page);
    found.splice(0); // what the browser says of a server that is away
  }
  await finish(page);
  await readReport(page);
  await trainAgain(page, "second");
  await compare(page);
  const best = await promote(page);
  await ask(page, best);
  expect(found).toEqual([]);
});

let numPictures = 0;

/** Check a page in light and dark, and keep pictures of it where they are asked for. */
async function look(page: Page, name: string): Promise<void> {
  process.stderr.write(`story: ${name}\n`); // where a long one is, or has failed
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await expectAccessible(page);
  }
  await page.emulateMedia({ colorScheme: "light" });
  if (!WORLD.pictures) return;
  numPictures += 1;
  for (const [view, width, colorScheme] of [
    ["wide", 1280, "light"],
    ["narrow", 390, "light"],
    ["dark", 1280, "dark"],
  ] as const) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    await page.waitForTimeout(300); // charts follow the width
    const path = `${WORLD.pictures}/${String(numPictures).padStart(2, "0")}-${name}-${view}.png`;
    await page.screenshot({ path, fullPage: true });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}

/** Let what runs come to its end: by itself, or at once where nothing is computed. */
async function finish(page: Page): Promise<void> {
  if (!IS_REAL) await page.request.get("/dev/finish");
  await page.getByText("Succeeded").waitFor();
}

async function setUp(page: Page): Promise<void> {
  await page.goto("/");
  await page.getByText("Nobody has an account here yet").waitFor();
  await page.goto(WORLD.setup);
  await page.getByLabel("Name").fill("ada");
  await page.getByLabel("New password").fill("a few good words");
  await look(page, "setup");
  await page.getByRole("button", { name: "Make the account" }).click();
  await page.getByRole("heading", { name: "Environment" }).waitFor();
}

async function takeEnvironment(page: Page): Promise<void> {
  const name = { M: /Medium/, L: /Large/ }[WORLD.size];
  await page.getByRole("radio", { name }).check();
  await look(page, "environment");
  await page.getByRole("button", { name: `Take size ${WORLD.size}` }).click();
  await page.getByRole("heading", { name: "New training" }).waitFor();
}

/** Choose what is too large for the environment: it cannot be started, and the way out is shown. */
async function chooseTooMuch(page: Page): Promise<void> {
  await page.getByRole("radio", { name: /ogbl-citation2/ }).check();
  const estimate = page.getByRole("complementary", { name: "What it needs" });
  await estimate.getByRole("link", { name: "Go to your environment" }).waitFor();
  const start = page.getByRole("button", { name: "Start the training" });
  expect(await start.isDisabled()).toBe(true);
}

async function train(page: Page, name: string): Promise<void> {
  await page.getByRole("radio", { name: "Your file" }).check();
  await page.getByLabel(/Drop a file here/).setInputFiles({
    name: "virus.exe",
    mimeType: "application/octet-stream",
    buffer: Buffer.from("MZ"),
  });
  await page.getByText("virus.exe is no dataset that citeflow knows").waitFor();
  await page.getByLabel(/Drop a file here/).setInputFiles({
    name: WORLD.file.replace(/.*\//, ""),
    mimeType: "application/zip",
    buffer: IS_REAL ? readFileSync(WORLD.file) : Buffer.from("PK"),
  });
  await page.getByText(WORLD.summary).waitFor();
  const chosen = page.getByRole("radio", { name: new RegExp(WORLD.summary) });
  expect(await chosen.isChecked()).toBe(true);
  await page.getByLabel("Workers").fill("2");
  await page.getByLabel("Minutes").fill(WORLD.minutes);
  const start = page.getByRole("button", { name: "Start the training" });
  const field = page.getByLabel(/Name of the run/);
  await field.fill("My run");
  await page.getByText("Not allowed: M, a space").waitFor();
  expect(await field.getAttribute("aria-invalid")).toBe("true");
  expect(await start.isDisabled()).toBe(true);
  await field.fill(name);
  await page.getByText("As a job on a cluster").click();
  const job = page.getByRole("region", { name: "The job as YAML" });
  await job.getByText(/replicas: 2|--workers=2/).waitFor();
  await look(page, "form");
  await start.click();
}

/** Watch the curve move, cancel and resume. */
async function watchCancelAndResume(page: Page): Promise<void> {
  await page.getByText("Running", { exact: true }).waitFor();
  await look(page, "begun");
  await moving(page);
  await look(page, "training");
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("Stopped").waitFor();
  await page.getByText("You cancelled it. Resume goes on from its checkpoint").waitFor();
  await look(page, "stopped");
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Running", { exact: true }).waitFor();
}

/** Wait until the curve has moved. */
async function moving(page: Page): Promise<void> {
  const curve = page.getByRole("img", { name: /^Loss by step/ });
  await curve.waitFor();
  const first = await curve.getAttribute("aria-label");
  await page.waitForFunction(
    (old) => document.querySelector('[aria-label^="Loss by step"]')?.ariaLabel !== old,
    first,
  );
}

/** Have the server killed and started: the page says so, comes back, and shows the run go on. */
async function outlive(page: Page): Promise<void> {
  await page.getByText("Live", { exact: true }).waitFor();
  const before = (await page.getByRole("log").textContent())!;
  const restarted = fetch(WORLD.restart, { method: "POST" });
  await page.getByText("The connection is lost; it comes back by itself.").waitFor();
  await look(page, "lost");
  expect((await restarted).status).toBe(204);
  await page.getByText("Live", { exact: true }).waitFor();
  await page.waitForFunction(
    (old) => document.querySelector('[role="log"]')!.textContent!.length > old.length,
    before,
  );
  const lines = (await page.getByRole("log").textContent())!.split("\n");
  expect(lines.slice(0, before.split("\n").length).join("\n")).toBe(before);
  expect(lines.filter((line) => line.includes("run starts")).length).toBe(2); // both attempts
}

async function readReport(page: Page): Promise<void> {
  await page.frameLocator("iframe").getByRole("heading").first().waitFor();
  await look(page, "succeeded");
}

async function trainAgain(page: Page, name: string): Promise<void> {
  await page.getByRole("link", { name: "Train again" }).click();
  await page.getByText("Settings", { exact: true }).click();
  await page.getByLabel(/layers$/i).fill("3");
  await page.getByLabel(/Name of the run/).fill(name);
  await look(page, "settings");
  await page.getByRole("button", { name: "Start the training" }).click();
  await page.getByRole("heading", { name }).waitFor();
  await page.getByText("Running", { exact: true }).waitFor();
  process.stderr.write(`story: ${name} runs\n`);
  await finish(page);
  process.stderr.write(`story: ${name} has ended\n`);
}

async function compare(page: Page): Promise<void> {
  await page.getByRole("link", { name: "Runs" }).click();
  expect(await page.getByRole("button", { name: "Compare" }).isDisabled()).toBe(true);
  await page.getByLabel("Select first").check();
  await page.getByLabel("Select second").check();
  await look(page, "runs");
  await page.getByRole("button", { name: "Compare" }).click();
  await page
    .getByRole("cell", { name: /the best/ })
    .first()
    .waitFor();
  await page.getByRole("rowheader", { name: "model.num_layers" }).waitFor();
  await look(page, "compare");
}

/** Promote the better version, be refused the worse one, and deploy; return what was deployed. */
async function promote(page: Page): Promise<number> {
  await page.getByRole("link", { name: "Models" }).click();
  const cells = page.getByRole("cell", { name: /^0\.\d{4}$/ });
  await cells.nth(1).waitFor();
  const scores = await cells.allTextContents();
  const best = scores[0]! >= scores[1]! ? 2 : 1;
  await page.getByRole("button", { name: `Promote version ${best}` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Promote" }).click();
  await page.getByRole("cell", { name: "champion" }).waitFor();
  const promoteBest = page.getByRole("button", { name: `Promote version ${best}` });
  expect(await promoteBest.isDisabled()).toBe(true);
  await page.getByRole("button", { name: `Promote version ${3 - best}` }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Promote" }).click();
  await page.getByText(`is no better than the champion, version ${best}`).waitFor();
  await look(page, "refused");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: `Deploy version ${best}` }).click();
  await page.getByRole("button", { name: `Deployed version ${best}` }).waitFor();
  await look(page, "models");
  return best;
}

async function ask(page: Page, version: number): Promise<void> {
  await page.getByRole("link", { name: "Try it" }).first().click();
  await page.getByText(new RegExp(`Version ${version} of .+ answers: it is deployed`)).waitFor();
  await page.getByText("For example").waitFor();
  const box = page.getByRole("combobox", { name: /Words of its title/ });
  await box.fill(WORLD.word);
  const option = page.getByRole("option").first();
  await option.waitFor();
  const title = await option.evaluate((element) => element.firstChild!.textContent!);
  await box.press("ArrowDown");
  await box.press("Enter");
  await page.getByRole("heading", { level: 2, name: title }).waitFor();
  expect(await page.locator(".reasons li").first().textContent()).not.toBe("");
  await look(page, "answers");
  await page.getByLabel("Title", { exact: true }).fill(`The ${WORLD.word} without end`);
  await page.getByRole("button", { name: "Find citations" }).click();
  await page.getByText("No references: the model is out of its depth").waitFor();
  await look(page, "new-paper");
}
