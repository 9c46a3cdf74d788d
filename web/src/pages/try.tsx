import { useMutation, useQuery } from "@tanstack/react-query";
import { useState, type FormEvent } from "react";
import { Link, useNavigate, useParams } from "react-router";

import { post } from "../api/client";
import * as queries from "../api/queries";
import type { Answers as Found, Model, Paper, Question } from "../api/types";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { Page } from "../components/page";
import { PaperSearch } from "../components/paperSearch";
import { ProblemNote } from "../components/problemNote";
import { TextField } from "../components/textField";
import { count, probability, sentence } from "../format";
import { answering } from "../models";

const TOP = 10;
const WAIT_MS = 300_000; // The first question to a model makes its index.

/** Ask a model which citations a paper lacks. */
export function TryPage() {
  const { model } = useParams();
  const models = useQuery(queries.models);
  return (
    <Page
      title="Try it"
      headline="What a paper most likely should cite and does not, with the reasons."
    >
      <Loaded query={models} what="the models">
        {(all) => {
          const able = all.filter((each) => each.versions.length > 0);
          const chosen = able.find((each) => each.name === model) ?? able[0];
          if (!chosen) return <NoModel />;
          const canAnswer = answering(chosen) !== null;
          return (
            <>
              {able.length > 1 && <ModelChoice models={able} chosen={chosen} />}
              <WhoAnswers model={chosen} />
              {canAnswer ? (
                <Asking key={chosen.name} model={chosen.name} />
              ) : (
                <CodeAlone model={chosen} />
              )}
            </>
          );
        }}
      </Loaded>
    </Page>
  );
}

function NoModel() {
  return (
    <Empty title="No model yet">
      <p>The first training of citations that succeeds makes one, and it answers here.</p>
      <Link className="button" to="/new">
        New training
      </Link>
    </Empty>
  );
}

function CodeAlone({ model }: { model: Model }) {
  return (
    <Empty title={`${model.name} cannot be asked`}>
      <p>
        All of its versions have code of your own, which only their trainings run. A version with
        the built-in model, or with your weights alone, answers here.
      </p>
      <Link className="button" to="/models">
        All versions
      </Link>
    </Empty>
  );
}

function WhoAnswers({ model }: { model: Model }) {
  const chosen = answering(model);
  return (
    chosen && (
      <p className="remark">
        Version {chosen.version} of {model.name} answers: {chosen.because}.{" "}
        <Link to="/models">All versions</Link>
      </p>
    )
  );
}

function ModelChoice({ models, chosen }: { models: Model[]; chosen: Model }) {
  const navigate = useNavigate();
  return (
    <label className="inline">
      Model
      <select
        value={chosen.name}
        onChange={(event) => navigate(`/try/${encodeURIComponent(event.target.value)}`)}
      >
        {models.map(({ name }) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

interface Asked {
  label: string;
  question: Question;
}

function Asking({ model }: { model: string }) {
  const ask = useMutation({
    mutationFn: ({ question }: Asked) =>
      post<Found>(`/try/${encodeURIComponent(model)}/citations`, question, { wait: WAIT_MS }),
  });
  const askFor = ({ id, title }: Paper) =>
    ask.mutate({ label: title || `Paper ${id}`, question: { paper: String(id), top: TOP } });
  return (
    <>
      <div className="grid">
        <section className="card">
          <h2>A paper of the graph</h2>
          <PaperSearch model={model} onChoose={askFor} />
        </section>
        <NewPaper
          isPending={ask.isPending}
          onAsk={(question) => ask.mutate({ label: question.title || "A new paper", question })}
        />
      </div>
      <section className="section" aria-label="Answer" aria-busy={ask.isPending}>
        <p className="remark" role="status">
          {ask.isPending && "Asking… The first question to a model takes a while."}
          {ask.isSuccess &&
            `${count(ask.data.answers.length, "paper")} found by version ${ask.data.version}; the number on the right is the probability that it should be cited`}
        </p>
        <ProblemNote error={ask.error} again={() => ask.variables && ask.mutate(ask.variables)} />
        {ask.isSuccess && (
          <Answers label={ask.variables.label} found={ask.data} onChoose={askFor} />
        )}
      </section>
    </>
  );
}

interface NewPaperProps {
  isPending: boolean;
  onAsk: (question: Question) => void;
}

function NewPaper({ isPending, onAsk }: NewPaperProps) {
  const [title, setTitle] = useState("");
  const [abstract, setAbstract] = useState("");
  const [references, setReferences] = useState("");
  const ids = references.split(/[\n,]+/).map((id) => id.trim());
  const question = {
    title: title.trim(),
    abstract: abstract.trim(),
    references: ids.filter(Boolean),
  };
  const isEmpty = !question.title && !question.abstract && !question.references.length;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onAsk({ ...question, top: TOP });
  };
  return (
    <form className="card" onSubmit={submit}>
      <h2>A new paper</h2>
      <TextField label="Title" maxLength={1000} value={title} onText={setTitle} />
      <div className="field">
        <label htmlFor="abstract">Abstract</label>
        <textarea
          id="abstract"
          rows={4}
          maxLength={20_000}
          value={abstract}
          onChange={(event) => setAbstract(event.target.value)}
        />
      </div>
      <div className="field">
        <label htmlFor="references">References: ids, one per line or with commas between</label>
        <textarea
          id="references"
          rows={3}
          spellCheck={false}
          autoCapitalize="off"
          value={references}
          onChange={(event) => setReferences(event.target.value)}
        />
      </div>
      <div className="actions start">
        <button type="submit" disabled={isEmpty || isPending}>
          Find citations
        </button>
      </div>
    </form>
  );
}

interface AnswersProps {
  label: string;
  found: Found;
  /** Called with a paper of the list, to ask for what it lacks in turn. */
  onChoose: (paper: Paper) => void;
}

function Answers({ label, found: { answers, notes }, onChoose }: AnswersProps) {
  return (
    <div className="card">
      <h2>{label}</h2>
      {notes.map((note) => (
        <p key={note} className="remark">
          {sentence(note)}
        </p>
      ))}
      {answers.length === 0 && (
        <p className="remark">
          No paper found: there is none that fits, or none that it does not cite. A longer abstract
          or more references may help.
        </p>
      )}
      <ol className="answers">
        {answers.map((answer, index) => (
          <li key={answer.id}>
            <span className="rank">{index + 1}</span>
            <h3>
              <button type="button" className="link" onClick={() => onChoose(answer)}>
                {answer.title || `Paper ${answer.id}`}
              </button>
            </h3>
            <Chance value={answer.probability} />
            <p className="facts">
              {[answer.title && `id ${answer.id}`, answer.year].filter(Boolean).join(" · ")}
            </p>
            <ul className="reasons">
              {answer.reasons.map((reason) => (
                <li key={reason}>{sentence(reason)}</li>
              ))}
            </ul>
          </li>
        ))}
      </ol>
    </div>
  );
}

function Chance({ value }: { value: number }) {
  return (
    <span className="chance" title={`probability ${value.toFixed(4)}`}>
      {probability(value)}
      <i aria-hidden="true">
        <i style={{ width: `${100 * value}%` }} />
      </i>
    </span>
  );
}
