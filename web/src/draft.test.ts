import { expect, test } from "vitest";

import type { Field, Form, Run, Upload } from "./api/types";
import {
  draftOf,
  emptyDraft,
  limits,
  nameProblem,
  submissionOf,
  withPreset,
  withStart,
} from "./draft";

const field = (name: string, part: Partial<Field>): Field => ({
  name,
  label: name,
  help: "",
  group: "",
  type: "number",
  default: 0,
  choices: [],
  advanced: false,
  ...part,
});

const FORM: Form = {
  task: "citation",
  max_workers: 4,
  presets: [],
  models: [],
  code_problem: "",
  datasets: [{ name: "synthetic", help: "" }],
  fields: [
    field("train.lr", { default: 0.01, exclusive_minimum: 0 }),
    field("model.normalize", { type: "bool", default: false }),
    field("model.hops", { type: "choice", default: 3, choices: ["0", "2", "3"] }),
    field("model.aggr", { type: "choice", default: "mean", choices: ["mean", "max"] }),
  ],
};

test("submissionOf sends the first dataset and no setting where nothing was entered", () => {
  expect(submissionOf(emptyDraft("citation"), FORM)).toEqual({
    task: "citation",
    dataset: "synthetic",
    workers: 1,
    settings: {},
  });
});

test("submissionOf gives each setting its type and leaves out what is as by default", () => {
  const entered = {
    "train.lr": "0.020",
    "model.normalize": true,
    "model.hops": "2",
    "model.aggr": "mean",
  };
  const made = submissionOf({ ...emptyDraft("citation"), entered }, FORM);
  expect(made?.settings).toEqual({ "train.lr": 0.02, "model.normalize": true, "model.hops": 2 });
});

test("submissionOf waits for an upload or an address", () => {
  const draft = emptyDraft("citation");
  expect(submissionOf({ ...draft, source: "upload" }, FORM)).toBeNull();
  expect(submissionOf({ ...draft, source: "url", url: "  " }, FORM)).toBeNull();
  expect(submissionOf({ ...draft, source: "upload", upload: "u1" }, FORM)?.dataset).toBe(
    "upload:u1",
  );
});

test("submissionOf names the file of a model, and waits for it", () => {
  const own = { ...emptyDraft("citation"), own: "code", code: "u2", weights: "u3" } as const;
  expect(submissionOf(own, FORM)?.settings).toEqual({ "model.code": "upload:u2" });
  expect(submissionOf({ ...own, own: "weights" }, FORM)?.settings).toEqual({
    "model.weights": "upload:u3",
  });
  expect(submissionOf({ ...own, own: "" }, FORM)?.settings).toEqual({});
  expect(submissionOf({ ...own, code: "" }, FORM)).toBeNull();
  expect(submissionOf(own, { ...FORM, code_problem: "no sandbox" })).toBeNull();
});

test("draftOf chooses the file of a model that is still there", () => {
  const settings = { "model.code": "upload:u2", "train.lr": 0.5 };
  const run = { task: "citation", dataset: "synthetic", workers: 1, settings } as unknown as Run;
  const kept = draftOf(run, [{ id: "u2", kind: "code" } as Upload]);
  expect(submissionOf(kept, FORM)?.settings).toEqual(settings);
  expect(submissionOf(draftOf(run, []), FORM)).toBeNull();
});

test.each(["", " ", "a", "run-2", " run-2 "])("nameProblem has nothing against %j", (name) =>
  expect(nameProblem(name)).toBe(""),
);

test.each([
  ["My run", "not allowed: M, a space"],
  ["run_2", "not allowed: _"],
  ["run-", "begins and ends"],
])("nameProblem of %j says %s", (name, words) => {
  expect(nameProblem(name)).toContain(words);
  expect(submissionOf({ ...emptyDraft("citation"), name }, FORM)).not.toHaveProperty("name");
});

test.each([
  ["hepth.zip", "upload:u1"],
  ["https://example.org/a.zip", "https://example.org/a.zip"],
  ["ogbl-citation2", "ogbl-citation2"],
])("draftOf makes the submission of a run on %s again", (dataset, submitted) => {
  const run = { task: "citation", dataset, workers: 2, settings: { "train.lr": 0.5 } } as unknown;
  const uploads = [
    { id: "u0", name: "hepth.zip", kind: "code" } as Upload,
    { id: "u1", name: "hepth.zip", kind: "dataset" } as Upload,
  ];
  const made = submissionOf(draftOf(run as Run, uploads), FORM);
  expect(made).toEqual({ ...(run as Run), dataset: submitted });
});

test.each([
  [{ minimum: 1, maximum: 10 }, "1 to 10"],
  [{ minimum: 0, exclusive_maximum: 1 }, "at least 0, below 1"],
  [{ exclusive_minimum: 0, maximum: null }, "over 0"],
  [{}, ""],
])("limits of %j are %s", (part, words) => expect(limits(field("a", part))).toBe(words));

test("a form begins with a small graph and a minute, which are sent", () => {
  const fields = [
    field("train.minutes", { group: "train" }),
    field("synthetic.num_papers", { group: "synthetic", default: 20_000 }),
  ];
  const form = { ...FORM, fields };
  const draft = emptyDraft("citation");
  const small = { "train.minutes": 1, "synthetic.num_papers": 5000 };
  expect(submissionOf(draft, form)?.settings).toEqual(small);
  expect(withStart(form, draft.start).fields.map((each) => each.default)).toEqual(["1", "5000"]);
  const upload = { ...draft, source: "upload" as const, upload: "u1" };
  expect(submissionOf(upload, form)?.settings).toEqual({ "train.minutes": 1 });
});

test("a preset changes the defaults, so that only what differs from it is sent", () => {
  const presets = [{ name: "fast", help: "", settings: { "train.lr": 0.1 } }];
  const form = withPreset({ ...FORM, presets }, "fast");
  expect(form.fields[0]?.default).toBe(0.1);
  const draft = { ...emptyDraft("citation"), preset: "fast", entered: { "train.lr": "0.01" } };
  expect(submissionOf(draft, form)).toMatchObject({
    preset: "fast",
    settings: { "train.lr": 0.01 },
  });
});
