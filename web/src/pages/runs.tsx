import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";

import * as queries from "../api/queries";
import type { Run, State } from "../api/types";
import { StateBadge, STATES } from "../components/badge";
import { Empty } from "../components/empty";
import { Loaded } from "../components/loaded";
import { Bar } from "../components/meter";
import { Older } from "../components/older";
import { Page } from "../components/page";
import { doingOf } from "../components/progress";
import { Sparkline } from "../components/sparkline";
import { Ago } from "../components/time";
import { duration, figureName, percent, score } from "../format";

const MOST_COMPARED = 4;

/** All runs of one's own, the newest first; two or more can be compared. */
export function RunsPage() {
  const navigate = useNavigate();
  const [words, setWords] = useSearchParams();
  const [chosen, setChosen] = useState<string[]>([]);
  const state = (words.get("state") ?? "") as State | "";
  const runs = useInfiniteQuery(queries.runs(state));
  const toggle = (id: string) =>
    setChosen((old) => (old.includes(id) ? old.filter((each) => each !== id) : [...old, id]));

  return (
    <Page
      title="Runs"
      actions={
        <Link className="button" to="/new">
          New training
        </Link>
      }
    >
      <Loaded query={runs} what="the runs">
        {(shown) => {
          if (!shown.length && !state) return <NoRuns />;
          return (
            <>
              <div className="tools">
                <StateFilter
                  state={state}
                  onChange={(next) => setWords(next ? { state: next } : {})}
                />
                <button
                  type="button"
                  disabled={chosen.length < 2}
                  onClick={() => navigate(`/runs/compare?ids=${chosen.join(",")}`)}
                >
                  Compare
                </button>
                <span className="remark" role="status">
                  {chosen.length < 2
                    ? "Select two runs to compare them."
                    : `${chosen.length} selected`}
                </span>
              </div>
              {shown.length ? (
                <RunsTable runs={shown} chosen={chosen} toggle={toggle} />
              ) : (
                <p className="remark">
                  No run is in this state.{" "}
                  <button type="button" className="link" onClick={() => setWords({})}>
                    Show all
                  </button>
                </p>
              )}
              <Older query={runs} />
            </>
          );
        }}
      </Loaded>
    </Page>
  );
}

function NoRuns() {
  return (
    <Empty title="No run yet">
      <p>
        A training takes data, fits a model to them, and measures it. The synthetic data set is a
        good first try: it needs no file, and a minute is enough.
      </p>
      <Link className="button" to="/new">
        Start the first training
      </Link>
    </Empty>
  );
}

interface FilterProps {
  state: State | "";
  onChange: (state: string) => void;
}

function StateFilter({ state, onChange }: FilterProps) {
  return (
    <label className="inline">
      State
      <select value={state} onChange={(event) => onChange(event.target.value)}>
        <option value="">all</option>
        {STATES.map(([key, words]) => (
          <option key={key} value={key}>
            {words.toLowerCase()}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TableProps {
  runs: Run[];
  chosen: string[];
  toggle: (id: string) => void;
}

function RunsTable({ runs, chosen, toggle }: TableProps) {
  return (
    <div className="card table-card">
      <table className="runs">
        <thead>
          <tr>
            <th scope="col">
              <span className="unseen">Select</span>
            </th>
            <th scope="col">Run</th>
            <th scope="col">State</th>
            <th scope="col" className="number">
              Score
            </th>
            <th scope="col">
              <span className="unseen">Course</span>
            </th>
            <th scope="col" className="number">
              Took
            </th>
            <th scope="col" className="number">
              Submitted
            </th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <Row
              key={run.id}
              run={run}
              isChosen={chosen.includes(run.id)}
              isFull={chosen.length >= MOST_COMPARED}
              toggle={toggle}
            />
          ))}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  run: Run;
  isChosen: boolean;
  isFull: boolean;
  toggle: (id: string) => void;
}

function Row({ run, isChosen, isFull, toggle }: RowProps) {
  return (
    <tr className={isChosen ? "is-chosen" : ""}>
      <td className="pick">
        <input
          type="checkbox"
          aria-label={`Select ${run.name}`}
          checked={isChosen}
          disabled={isFull && !isChosen}
          onChange={() => toggle(run.id)}
        />
      </td>
      <th scope="row">
        <Link to={`/runs/${run.id}`}>{run.name}</Link>
        <small>
          {run.task} · {run.dataset}
        </small>
      </th>
      <td>
        <StateBadge run={run} />
        {run.state === "running" && run.progress && (
          <>
            <small>{doingOf(run.progress)}</small>
            {typeof run.progress.fraction === "number" && (
              <Bar
                label={`Progress of ${run.name}`}
                share={run.progress.fraction}
                words={percent(run.progress.fraction)}
                as="progressbar"
              />
            )}
          </>
        )}
      </td>
      <td className="number">
        {run.score && (
          <>
            {score(run.score.value)}
            <small>{figureName(run.score.name)}</small>
          </>
        )}
      </td>
      <td>
        <Sparkline values={run.spark} />
      </td>
      <td className="number">{run.started && duration(took(run))}</td>
      <td className="number">
        <Ago iso={run.created} />
      </td>
    </tr>
  );
}

/** Return for how many seconds a run has run, or ran. */
export function took(run: Run, now = Date.now()): number {
  if (!run.started) return 0;
  const end = run.ended ? Date.parse(run.ended) : now;
  return (end - Date.parse(run.started)) / 1000;
}
