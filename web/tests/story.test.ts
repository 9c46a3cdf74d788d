/** What a new user does, from the link of the first account to citations with reasons. */

import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { complaints, makeStage, type Stage } from "./browser";

let stage: Stage;
beforeAll(async () => {
  stage = await makeStage();
});
afterAll(() => stage.close());

test("a new user sets up, trains, watches, compares, promotes and asks", async () => {
  const page = await stage.open("empty");
  const found = complaints(page, stage.base);
  await setUp(page);
  await page.getByRole("radio", { name: /Medium/ }).check();
  await page.getByRole("button", { name: "Take size M" }).click();
  await page.getByText("Yours: size M").waitFor();

  await page.getByRole("link", { name: "New training" }).first().click();
  await chooseTooMuch(page);
  await train(page, "hepth.zip", "first", "10");
  await watch(page);

  await page.getByRole("link", { name: "Train again" }).click();
  await page.getByLabel("Layers").fill("3");
  await page.getByLabel(/Name of the run/).fill("second");
  await page.getByRole("button", { name: "Start the training" }).click();
  await page.getByText("Running").waitFor();
  await page.request.get("/dev/finish");
  await page.getByText("Succeeded").waitFor();

  await compare(page);
  const best = await promote(page);
  await ask(page, best);
  expect(found).toEqual([]);
});

async function setUp(page: Page): Promise<void> {
  await page.goto("/");
  await page.getByText("Nobody has an account here yet").waitFor();
  await page.goto("/setup?token=first");
  await page.getByLabel("Name").fill("ada");
  await page.getByLabel("New password").fill("a few good words");
  await page.getByRole("button", { name: "Make the account" }).click();
  await page.getByRole("heading", { name: "Environment" }).waitFor();
}

async function train(page: Page, file: string, name: string, minutes: string): Promise<void> {
  await page.getByRole("radio", { name: "Your file" }).check();
  await page.getByLabel(/Drop a file here/).setInputFiles({
    name: "virus.exe",
    mimeType: "application/octet-stream",
    buffer: Buffer.from("MZ"),
  });
  await page.getByText("Not a data set: virus.exe").waitFor();
  await page.getByLabel(/Drop a file here/).setInputFiles({
    name: file,
    mimeType: "application/zip",
    buffer: Buffer.from("PK"),
  });
  await page.getByText("27,770 papers, 352,807 citations").waitFor();
  expect(await page.getByRole("radio", { name: new RegExp(file) }).isChecked()).toBe(true);
  await page.getByLabel("Workers").fill("2");
  await page.getByLabel("Minutes").fill(minutes);
  const start = page.getByRole("button", { name: "Start the training" });
  const field = page.getByLabel(/Name of the run/);
  await field.fill("My run");
  await page.getByText("Not allowed: M, a space").waitFor();
  expect(await field.getAttribute("aria-invalid")).toBe("true");
  expect(await start.isDisabled()).toBe(true);
  await field.fill(name);
  await page.getByText("As a job on a cluster").click();
  await page.getByRole("region", { name: "The job as YAML" }).getByText("replicas: 2").waitFor();
  await start.click();
}

/** Choose what is too large for the environment: it cannot be started, and the way out is shown. */
async function chooseTooMuch(page: Page): Promise<void> {
  await page.getByRole("radio", { name: /ogbl-citation2/ }).check();
  const estimate = page.getByRole("complementary", { name: "What it needs" });
  await estimate.getByRole("link", { name: "Go to your environment" }).waitFor();
  const start = page.getByRole("button", { name: "Start the training" });
  expect(await start.isDisabled()).toBe(true);
}

/** Watch the curve move, cancel, resume, and read the report. */
async function watch(page: Page): Promise<void> {
  const curve = page.getByRole("img", { name: /^Loss by step/ });
  await curve.waitFor();
  const first = await curve.getAttribute("aria-label");
  await page.waitForFunction(
    (old) => document.querySelector('[aria-label^="Loss by step"]')?.ariaLabel !== old,
    first,
  );
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("Stopped").waitFor();
  await page.getByText("You cancelled it. Resume goes on from its checkpoint.").waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("Running").waitFor();
  await page.request.get("/dev/finish");
  await page.getByText("Succeeded").waitFor();
  await page.frameLocator("iframe").getByRole("heading", { name: "Report" }).waitFor();
  await page.getByRole("radio", { name: "rank 1" }).check();
  const log = await page.getByRole("log").textContent();
  expect(log).toContain("rank 1:");
  expect(log).not.toContain("rank 0:");
}

async function compare(page: Page): Promise<void> {
  await page.getByRole("link", { name: "Runs" }).click();
  expect(await page.getByRole("button", { name: "Compare" }).isDisabled()).toBe(true);
  await page.getByLabel("Select first").check();
  await page.getByLabel("Select second").check();
  await page.getByRole("button", { name: "Compare" }).click();
  await page
    .getByRole("cell", { name: /the best/ })
    .first()
    .waitFor();
  await page.getByRole("rowheader", { name: "model.num_layers" }).waitFor();
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
  await page.getByText(/Worse than champion: 0\.\d{4} against 0\.\d{4}/).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: `Deploy version ${best}` }).click();
  await page.getByRole("button", { name: `Deployed version ${best}` }).waitFor();
  return best;
}

async function ask(page: Page, version: number): Promise<void> {
  await page.getByRole("link", { name: "Try it" }).first().click();
  await page.getByText(`Version ${version} of citation answers: it is deployed`).waitFor();
  const box = page.getByRole("combobox", { name: /Words of its title/ });
  await box.fill("brane");
  await page.getByRole("option", { name: /Branes and black holes/ }).waitFor();
  await box.press("ArrowDown");
  await box.press("Enter");
  await page.getByRole("heading", { name: "Branes and black holes" }).first().waitFor();
  await page
    .getByText(/Cited together with/)
    .first()
    .waitFor();
  await page.getByLabel("Title", { exact: true }).fill("Strings without end");
  await page.getByRole("button", { name: "Find citations" }).click();
  await page.getByText("A new paper: no reference of it").waitFor();
}
