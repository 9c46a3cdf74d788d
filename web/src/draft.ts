/** A training as it is being filled in, and the submission that it makes. */

import type { Field, Form, Run, Submission, Task, Upload, Value } from "./api/types";

/** The setting that has a place of its own beside the workers. */
export const MINUTES = "train.minutes";

/** Settings that name a file of a model of one's own. */
export const OWN = ["model.weights", "model.code"];

/** What a form begins with instead of the defaults: a first training is over in minutes. */
const START: Record<Task, Draft["start"]> = {
  citation: { [MINUTES]: "1", "synthetic.num_papers": "5000" },
  images: { [MINUTES]: "1" },
};

/** Begins the name of what was uploaded; its id follows. */
const UPLOADED = "upload:";

/** Of the name of a run, which also names a folder and a pod. */
export const MOST_LETTERS = 63;
const NAME = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

export interface Draft {
  task: Task;
  name: string;
  source: "named" | "upload" | "url";
  /** One of each source, so that a change of mind loses nothing. */
  named: string;
  upload: string;
  url: string;
  model: string;
  /** What the user brings of the model; nothing for the built-in one. */
  own: "" | "weights" | "code";
  weights: string;
  code: string;
  preset: string;
  workers: number;
  /** What the settings begin with instead of their defaults. */
  start: Record<string, string>;
  /** What was entered, by the name of the setting; a setting without an entry begins as it is. */
  entered: Record<string, string | boolean>;
}

export function emptyDraft(task: Task): Draft {
  return {
    task,
    name: "",
    source: "named",
    named: "",
    upload: "",
    url: "",
    model: "",
    own: "",
    weights: "",
    code: "",
    preset: "",
    workers: 1,
    start: START[task],
    entered: {},
  };
}

/** Fill in what a run was made with, to train again; a run names an upload by the file's name. */
export function draftOf(run: Run, uploads: Upload[]): Draft {
  const draft: Draft = { ...emptyDraft(run.task), workers: run.workers, start: {} };
  const others = Object.entries(run.settings).filter(([name]) => !OWN.includes(name));
  draft.entered = Object.fromEntries(others.map(([name, value]) => [name, enteredAs(value)]));
  for (const own of ["weights", "code"] as const) {
    const given = run.settings[`model.${own}`];
    if (given === undefined) continue;
    draft.own = own;
    draft[own] = uploads.find((each) => UPLOADED + each.id === given)?.id ?? "";
  }
  const upload = uploads.find((each) => each.kind === "dataset" && each.name === run.dataset);
  if (upload) return { ...draft, source: "upload", upload: upload.id };
  if (run.dataset.includes("://")) return { ...draft, source: "url", url: run.dataset };
  return { ...draft, named: run.dataset };
}

const enteredAs = (value: Value) => (typeof value === "boolean" ? value : String(value ?? ""));

/** Return a form whose defaults are those of a preset. */
export function withPreset(form: Form, name: string): Form {
  const settings = form.presets.find((each) => each.name === name)?.settings ?? {};
  const fields = form.fields.map((field) => ({
    ...field,
    default: settings[field.name] ?? field.default,
  }));
  return { ...form, fields };
}

/** Return a form as it is shown: its settings begin with some values instead of their defaults. */
export function withStart(form: Form, start: Draft["start"]): Form {
  const fields = form.fields.map((field) => ({
    ...field,
    default: start[field.name] ?? field.default,
  }));
  return { ...form, fields };
}

/** Return what is sent, or null while data or model are missing; a wrong name is left out. */
export function submissionOf(draft: Draft, form: Form): Submission | null {
  const dataset = datasetOf(draft, form);
  const own = draft.own && draft[draft.own];
  if (!dataset || (draft.own && !own) || (draft.own === "code" && form.code_problem)) return null;
  const submission: Submission = {
    task: draft.task,
    dataset,
    workers: draft.workers,
    settings: settingsOf({ ...draft.start, ...draft.entered }, fieldsFor(form, dataset)),
  };
  if (draft.own) submission.settings[`model.${draft.own}`] = UPLOADED + own;
  const name = draft.name.trim();
  if (name && !nameProblem(name)) submission.name = name;
  if (draft.model && !draft.own) submission.model = draft.model;
  if (draft.preset) submission.preset = draft.preset;
  return submission;
}

/** Say what is wrong with the name of a run; nothing where it is fine, or empty. */
export function nameProblem(name: string): string {
  const trimmed = name.trim();
  if (!trimmed || NAME.test(trimmed)) return "";
  const others = [...new Set(trimmed.replace(/[a-z0-9-]/g, ""))];
  if (!others.length) return "a name begins and ends with a letter or digit";
  return `not allowed: ${others.map((each) => (each === " " ? "a space" : each)).join(", ")}`;
}

/** Return what the training takes its data from; nothing while that is not chosen. */
export function datasetOf(draft: Draft, form: Form): string {
  if (draft.source === "upload") return draft.upload && UPLOADED + draft.upload;
  if (draft.source === "url") return draft.url.trim();
  return draft.named || (form.datasets[0]?.name ?? "");
}

/** Return the fields without those that describe another dataset, which is made on the spot. */
export function fieldsFor(form: Form, dataset: string): Field[] {
  const others = new Set(form.datasets.map(({ name }) => name).filter((name) => name !== dataset));
  return form.fields.filter(({ group }) => !others.has(group));
}

/** Return the settings that differ from their defaults. */
function settingsOf(entered: Draft["entered"], fields: Field[]): Record<string, Value> {
  const settings: Record<string, Value> = {};
  for (const field of fields) {
    const value = valueOf(field, entered[field.name]);
    if (value !== undefined && value !== field.default) settings[field.name] = value;
  }
  return settings;
}

function valueOf(field: Field, text: string | boolean | undefined): Value | undefined {
  if (text === undefined || text === "") return undefined;
  if (typeof text === "boolean") return text;
  if (field.type === "bool") return text === "true";
  if (field.type === "number" || field.type === "integer") return Number(text);
  // A choice may be of numbers, as 0, 2, 3.
  return typeof field.default === "number" ? Number(text) : text;
}

/** Write the limits of a number, as `1 to 100`, `over 0, below 1`, or nothing. */
export function limits(field: Field): string {
  const { minimum, maximum, exclusive_minimum: above, exclusive_maximum: below } = field;
  if (isNumber(minimum) && isNumber(maximum)) return `${minimum} to ${maximum}`;
  const parts = [
    isNumber(minimum) && `at least ${minimum}`,
    isNumber(above) && `over ${above}`,
    isNumber(maximum) && `at most ${maximum}`,
    isNumber(below) && `below ${below}`,
  ];
  return parts.filter(Boolean).join(", ");
}

const isNumber = (value: number | null | undefined) => typeof value === "number";
