import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useMemo, useState, type FormEvent } from "react";
import { Link, useNavigate } from "react-router";

import { post, Problem } from "../api/client";
import * as queries from "../api/queries";
import type { Form, Preview, Run, Submission, Task } from "../api/types";
import { CopyButton } from "../components/copyButton";
import { DropZone } from "../components/dropZone";
import { Loaded } from "../components/loaded";
import { ModelPart } from "../components/modelPart";
import { Options, Segments, Wrong } from "../components/options";
import { Page } from "../components/page";
import { useDelayed } from "../components/paperSearch";
import { ProblemNote } from "../components/problemNote";
import { Fields, Setting, SettingsPart, type Change } from "../components/settingsPart";
import { TextField } from "../components/textField";
import {
  datasetOf,
  draftOf,
  emptyDraft,
  MINUTES,
  MOST_LETTERS,
  nameProblem,
  OWN,
  submissionOf,
  withPreset,
  withStart,
  type Draft,
} from "../draft";
import { bytes, duration, sentence } from "../format";

const PAUSE_MS = 300; // after the last change, before the job is shown anew

const MINUTES_HELP =
  "How long to train; preparing and measuring come on top. 0 trains for the `epochs` of the settings.";

const TASKS: { name: Task; label: string; help: string }[] = [
  { name: "citation", label: "Citations", help: "Find the citations that papers lack." },
  { name: "images", label: "Images", help: "Tell what is on small images." },
];

/** Fill in a training, with what it needs beside it; `from` is a run to begin from. */
export function NewTrainingPage({ from }: { from: string }) {
  const origin = useQuery({ ...queries.run(from), enabled: from !== "" });
  const uploads = useQuery({ ...queries.uploads, enabled: from !== "" });
  return (
    <Page
      title="New training"
      headline="Choose the data; all the rest may stay as it is. The first choice is good for a first try: it needs no file."
    >
      {from ? (
        <Loaded query={origin} what="the run to begin from">
          {(run) => (
            <Loaded query={uploads} what="your files">
              {(known) => <Filling start={draftOf(run, known)} />}
            </Loaded>
          )}
        </Loaded>
      ) : (
        <Filling start={emptyDraft("citation")} />
      )}
    </Page>
  );
}

function Filling({ start }: { start: Draft }) {
  const [draft, setDraft] = useState(start);
  const { preset } = draft;
  const select = useCallback((form: Form) => withPreset(form, preset), [preset]);
  const form = useQuery({ ...queries.form(draft.task), select });
  const change: Change = (part) => setDraft((old) => ({ ...old, ...part }));
  return (
    <Loaded query={form} what="the form">
      {(loaded) => <TrainingForm form={loaded} draft={draft} change={change} setDraft={setDraft} />}
    </Loaded>
  );
}

interface FormProps {
  form: Form;
  draft: Draft;
  change: Change;
  setDraft: (draft: Draft) => void;
}

function TrainingForm({ form: asked, draft, change, setDraft }: FormProps) {
  const form = withStart(asked, draft.start);
  const navigate = useNavigate();
  const client = useQueryClient();
  const submission = useMemo(() => submissionOf(draft, asked), [draft, asked]);
  // A repeat of the same submission, as by a second click, starts no second run.
  // oxlint-disable-next-line react/exhaustive-deps
  const key = useMemo(newKey, [submission]);
  const start = useMutation({
    mutationFn: (made: Submission) => post<Run>("/runs", made, { key }),
    onSuccess: async (run) => {
      await client.invalidateQueries({ queryKey: ["runs"] });
      navigate(`/runs/${run.id}`);
    },
  });
  const preview = usePreview(submission);
  const error = start.error ?? preview.error;
  const wrong = error instanceof Problem ? error : null;
  const problemOf = (name: string) => (wrong?.field === name ? wrong.message : undefined);
  const problemOfSetting = (name: string) => problemOf(`settings.${name}`);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (canStart) start.mutate(submission);
  };
  const wrongName = nameProblem(draft.name);
  const canStart = submission !== null && !wrongName && preview.data?.fits !== false;
  const minutes = form.fields.find((field) => field.name === MINUTES);

  return (
    <form className="with-aside" onSubmit={submit}>
      <div>
        <TaskPart draft={draft} setDraft={setDraft} />
        <DataPart
          form={form}
          draft={draft}
          change={change}
          problem={problemOf("dataset")}
          problemOf={problemOfSetting}
        />
        <ModelPart
          form={form}
          draft={draft}
          change={change}
          problem={problemOf("model") ?? OWN.map(problemOfSetting).find(Boolean)}
        />
        <fieldset className="card">
          <legend>
            <h2>Workers and time</h2>
          </legend>
          <div className="row">
            <TextField
              label="Workers"
              type="number"
              min={1}
              max={form.max_workers}
              required
              help={`Processes that train together; ${form.max_workers} at most in your environment.`}
              problem={problemOf("workers")}
              value={draft.workers || ""}
              onText={(text) => change({ workers: Number(text) })}
            />
            {minutes && (
              <Setting
                field={{ ...minutes, help: MINUTES_HELP }}
                draft={draft}
                change={change}
                problem={problemOfSetting(MINUTES)}
              />
            )}
          </div>
          <TextField
            label="Name of the run, if you want one"
            maxLength={MOST_LETTERS}
            help="Small letters, digits and dashes."
            problem={wrongName || problemOf("name")}
            value={draft.name}
            onText={(name) => change({ name })}
          />
        </fieldset>
        <SettingsPart form={form} draft={draft} change={change} problemOf={problemOfSetting} />
      </div>
      <aside aria-label="What it needs">
        {!preview.isError && <Estimate preview={preview.data} isAsked={submission !== null} />}
        <ProblemNote error={error} />
        <button type="submit" className="wide" disabled={!canStart || start.isPending}>
          {start.isPending ? "Submitting…" : "Start the training"}
        </button>
        {preview.data && <Job yaml={preview.data.yaml} />}
      </aside>
    </form>
  );
}

/** Return the job that a submission would make, once it has not changed for a moment. */
function usePreview(submission: Submission | null) {
  const delayed = useDelayed(submission, PAUSE_MS);
  return useQuery({ ...queries.preview(delayed ?? NO_SUBMISSION), enabled: delayed !== null });
}

const NO_SUBMISSION: Submission = { task: "citation", dataset: "", workers: 1, settings: {} };

/** Make a random key; randomUUID is missing where the page is not on https or this machine. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((each) => each.toString(36)).join("-");
}

function TaskPart({ draft, setDraft }: Pick<FormProps, "draft" | "setDraft">) {
  return (
    <fieldset className="card">
      <legend>
        <h2>Task</h2>
      </legend>
      <Options
        name="task"
        options={TASKS}
        chosen={draft.task}
        onChoose={(task) => setDraft({ ...emptyDraft(task), workers: draft.workers })}
      />
    </fieldset>
  );
}

const SOURCES: [Draft["source"], string][] = [
  ["named", "By name"],
  ["upload", "Your file"],
  ["url", "By address"],
];

interface PartProps {
  form: Form;
  draft: Draft;
  change: Change;
  problem: string | undefined;
}

interface DataProps extends PartProps {
  problemOf: (name: string) => string | undefined;
}

function DataPart({ form, draft, change, problem, problemOf }: DataProps) {
  const chosen = datasetOf(draft, form);
  const own = form.fields.filter(({ group, advanced }) => group === chosen && !advanced);
  return (
    <fieldset className="card">
      <legend>
        <h2>Data</h2>
      </legend>
      <Segments
        name="source"
        label="Where the data come from"
        segments={SOURCES}
        chosen={draft.source}
        onChoose={(source) => change({ source })}
      />
      {draft.source === "named" && (
        <>
          <Options
            name="dataset"
            options={form.datasets}
            chosen={draft.named || form.datasets[0]?.name}
            onChoose={(named) => change({ named })}
          />
          <Fields fields={own} draft={draft} change={change} problemOf={problemOf} />
        </>
      )}
      {draft.source === "upload" && (
        <DropZone
          kind="dataset"
          help={
            form.task === "images"
              ? "A zip or tar of IDX files, or with one folder of images per class."
              : "A zip or tar with papers.csv and citations.csv, or a file of another known format, such as GraphML."
          }
          chosen={draft.upload}
          onChoose={(upload) => change({ upload })}
        />
      )}
      {draft.source === "url" && (
        <TextField
          label="Address of the file"
          type="url"
          placeholder="https://"
          required
          help="The server fetches it; it is read like a file of yours."
          value={draft.url}
          onText={(url) => change({ url })}
        />
      )}
      <Wrong problem={problem} />
    </fieldset>
  );
}

function Estimate({ preview, isAsked }: { preview: Preview | undefined; isAsked: boolean }) {
  if (!isAsked || !preview) {
    return (
      <div className="card estimate" role="status">
        <p className="remark">
          {isAsked ? "Working out what it needs…" : "Choose data and model to see what it needs."}
        </p>
      </div>
    );
  }
  return (
    <div className="card estimate" role="status">
      <dl>
        <div>
          <dt>Memory</dt>
          <dd>{preview.memory === null ? "not known" : bytes(preview.memory)}</dd>
        </div>
        <div>
          <dt>Training time</dt>
          <dd>
            {preview.seconds === null
              ? "until its epochs are done"
              : `about ${duration(preview.seconds)}`}
          </dd>
        </div>
      </dl>
      <p className={preview.fits ? "verdict" : "verdict is-bad"}>
        {preview.fits ? "Fits your environment." : "Does not fit your environment."}
      </p>
      {preview.detail && <p className="remark">{sentence(preview.detail)}</p>}
      {!preview.fits && (
        <p className="remark">
          <Link to="/environment">Go to your environment</Link>
        </p>
      )}
    </div>
  );
}

/** What would train it on a cluster; it may run on this machine, so it is folded. */
function Job({ yaml }: { yaml: string }) {
  return (
    <details className="card job">
      <summary>
        <h2>As a job on a cluster</h2>
      </summary>
      <CopyButton text={yaml} what="the job" />
      {/* What scrolls must be reachable by keyboard. */}
      <pre tabIndex={0} role="region" aria-label="The job as YAML">
        {yaml}
      </pre>
    </details>
  );
}
