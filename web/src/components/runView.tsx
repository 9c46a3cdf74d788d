import { useQuery } from "@tanstack/react-query";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useMemo, useState } from "react";
import { Link, useNavigate } from "react-router";

import { address, post, remove } from "../api/client";
import { hasEnded, useLiveRun, type Connection } from "../api/events";
import { metricNames, type LiveRun } from "../api/liveRun";
import * as queries from "../api/queries";
import type { MetricsEvent, Run } from "../api/types";
import {
  bytes,
  count,
  duration,
  figureName,
  score,
  scoreHelp,
  sentence,
  short,
  whole,
} from "../format";
import { took } from "../pages/runs";
import { StateBadge } from "./badge";
import { Chart, type Series } from "./chart";
import { Confirm } from "./confirm";
import { LogView } from "./logView";
import { Page } from "./page";
import { ProblemNote } from "./problemNote";
import { Progress } from "./progress";
import { Ago, Lasting } from "./time";

const LOADING = "Loading…";

interface Props {
  /** The run as it was asked for; its events bring what is newer. */
  known: Run;
  /** Whether it is the only one, as in `citeflow run --open`. */
  isAlone?: boolean;
}

/** A run with its progress, curves, log and report. */
export function RunView({ known, isAlone = false }: Props) {
  const [attempt, setAttempt] = useState(0);
  const live = useLiveRun(known.id, attempt);
  const run = live.run ?? known;
  const isOver = hasEnded(run.state);
  const isLoading = isOver
    ? live.connection === "connecting" || live.connection === "open"
    : live.run === null;
  return (
    <Page
      title={run.name}
      eyebrow={`${run.task} · ${run.dataset} · ${count(run.workers, "worker")}`}
      actions={
        <Actions run={run} isAlone={isAlone} onResumed={() => setAttempt((old) => old + 1)} />
      }
    >
      <Status run={run} connection={live.connection} isAlone={isAlone} />
      <Curves live={live} isLoading={isLoading} isOver={isOver} />
      {run.has_report && <Report run={run} isAlone={isAlone} />}
      <section className="section">
        <h2>Log</h2>
        <div className="card">
          {live.log.length ? (
            <LogView log={live.log} />
          ) : (
            <p className="remark">
              {isLoading ? LOADING : isOver ? "The run has written none." : "No line yet."}
            </p>
          )}
        </div>
      </section>
      <Settings run={run} />
    </Page>
  );
}

interface ActionsProps {
  run: Run;
  isAlone: boolean;
  onResumed: () => void;
}

function Actions({ run, isAlone, onResumed }: ActionsProps) {
  const models = useQuery({ ...queries.models, enabled: run.can.promote && !isAlone });
  const model = models.data?.find(({ versions }) => versions.some((each) => each.run === run.id));
  const client = useQueryClient();
  const navigate = useNavigate();
  const path = `/runs/${encodeURIComponent(run.id)}`;
  const change = useMutation({
    mutationFn: (verb: "cancel" | "resume") => post<Run>(`${path}/${verb}`),
    onSuccess: (changed, verb) => {
      client.setQueryData(queries.run(run.id).queryKey, changed);
      client.invalidateQueries({ queryKey: ["runs"] });
      if (verb === "resume") onResumed();
    },
  });
  return (
    <>
      {run.can.cancel && (
        <button
          type="button"
          className="plain"
          disabled={change.isPending}
          onClick={() => change.mutate("cancel")}
        >
          Cancel
        </button>
      )}
      {run.can.resume && (
        <button type="button" disabled={change.isPending} onClick={() => change.mutate("resume")}>
          Resume
        </button>
      )}
      {!isAlone && hasEnded(run.state) && (
        <Link className="button plain" to={`/new?from=${encodeURIComponent(run.id)}`}>
          Train again
        </Link>
      )}
      {run.can.promote && !isAlone && (
        <Link className="button plain" to="/models">
          Promote
        </Link>
      )}
      {model && (
        <Link className="button" to={`/try/${encodeURIComponent(model.name)}`}>
          Try its model
        </Link>
      )}
      {run.can.delete && (
        <Confirm
          action="Delete"
          question={`Delete ${run.name}?`}
          act={async () => {
            await remove(path);
            await client.invalidateQueries({ queryKey: ["runs"] });
            navigate("/runs");
          }}
        >
          <p>Its log, its report and its model go with it. Nothing brings them back.</p>
        </Confirm>
      )}
      <ProblemNote error={change.error} />
    </>
  );
}

const CONNECTIONS: Record<Connection, string> = {
  connecting: "Connecting…",
  open: "Live",
  lost: "The connection is lost; it comes back by itself.",
  ended: "",
};

const ALONE_LOST = "The connection is lost. Has the command been ended?";

interface StatusProps {
  run: Run;
  connection: Connection;
  isAlone: boolean;
}

function Status({ run, connection, isAlone }: StatusProps) {
  const { detail, progress } = run;
  const isRunning = run.state === "running" || run.state === "stopping";
  return (
    <section className="card status" aria-label="Status">
      <dl className="tiles">
        <div>
          <dt>State</dt>
          <dd>
            <StateBadge run={run} />
          </dd>
        </div>
        <div>
          <dt>{run.score ? sentence(figureName(run.score.name)) : "Score"}</dt>
          <dd className="strong">
            {run.score ? score(run.score.value) : "–"}
            {run.score && <small>{scoreHelp(run.score.name)}</small>}
          </dd>
        </div>
        <div>
          <dt>{isRunning ? "Running for" : "Took"}</dt>
          <dd>
            {run.started ? isRunning ? <Lasting since={run.started} /> : duration(took(run)) : "–"}
          </dd>
        </div>
        <div>
          <dt>{isAlone ? "Started" : "Submitted"}</dt>
          <dd>
            <Ago iso={run.created} />
          </dd>
        </div>
      </dl>
      {isRunning && run.started && <Progress progress={progress} />}
      {detail && <p className={run.state === "failed" ? "wrong" : "remark"}>{sentence(detail)}</p>}
      {!hasEnded(run.state) && (
        <p className={`connection is-${connection}`} role="status">
          {isAlone && connection === "lost" ? ALONE_LOST : CONNECTIONS[connection]}
        </p>
      )}
      {isAlone && hasEnded(run.state) && <Afterwards run={run} />}
    </section>
  );
}

/** How to see the page again: its server ends with the command. */
function Afterwards({ run }: { run: Run }) {
  return (
    <p className="remark">
      The run has ended; <code>citeflow runs show --local --open {run.name}</code> shows it again.
    </p>
  );
}

const CORES = "all workers";

interface CurvesProps {
  live: LiveRun;
  isLoading: boolean;
  isOver: boolean;
}

function Curves({ live: { metrics, resources }, isLoading, isOver }: CurvesProps) {
  const { losses, scores } = useMemo(() => metricNames(metrics), [metrics]);
  const loss = useMemo(() => seriesOf(metrics, losses, "loss"), [metrics, losses]);
  const quality = useMemo(() => seriesOf(metrics, scores, "score"), [metrics, scores]);
  const cores = useMemo(
    () => [{ name: CORES, points: resources.map(({ seconds, cores: y }) => point(seconds, y)) }],
    [resources],
  );
  const memory = useMemo(
    () => [{ name: CORES, points: resources.map(({ seconds, memory: y }) => point(seconds, y)) }],
    [resources],
  );
  const empty = isLoading
    ? LOADING
    : isOver
      ? "The run has written none."
      : "No values yet; they come while it trains.";
  if (!metrics.length && !resources.length) {
    return (
      <section className="section">
        <h2>Curves</h2>
        <p className="card remark">{empty}</p>
      </section>
    );
  }
  return (
    <section className="section">
      <h2>Curves</h2>
      <div className="grid">
        <Chart
          title="Loss"
          help="How far off the model is on what it learns from: it should fall."
          along="step"
          series={loss}
          format={short}
          formatX={whole}
          empty={empty}
        />
        <Chart
          title="Validation"
          help="How well it does on what was kept back: it should rise; 1 is the best."
          along="step"
          series={quality}
          format={short}
          formatX={whole}
          empty={empty}
        />
        <Chart
          title="Cores in use"
          along="after"
          series={cores}
          format={short}
          formatX={duration}
          fromZero
          empty={empty}
        />
        <Chart
          title="Memory"
          along="after"
          series={memory}
          format={bytes}
          formatX={duration}
          fromZero
          isBinary
          empty={empty}
        />
      </div>
    </section>
  );
}

const point = (x: number, y: number): [number, number] => [x, y];

function seriesOf(metrics: MetricsEvent[], names: string[], otherwise: string): Series[] {
  if (!names.length) return [{ name: otherwise, points: [] }];
  return names.map((name) => ({
    name: figureName(name.replace("validation ", "")),
    points: metrics.flatMap(({ step, values }) => {
      const value = values[name];
      return value === undefined ? [] : [point(step, value)];
    }),
  }));
}

/** The report of a run; the frame is sandboxed, for its text comes from data of any origin. */
function Report({ run, isAlone }: { run: Run; isAlone: boolean }) {
  const url = address(`/runs/${encodeURIComponent(run.id)}/report.html`);
  return (
    <section className="section">
      <div className="card-head">
        <h2>Report</h2>
        {!isAlone && (
          <a href={url} target="_blank" rel="noreferrer">
            Open it alone
          </a>
        )}
      </div>
      <iframe className="report" sandbox="" src={url} title={`Report of ${run.name}`} />
    </section>
  );
}

function Settings({ run }: { run: Run }) {
  const settings = Object.entries(run.settings);
  if (!settings.length) return null;
  return (
    <details className="card section">
      <summary>
        <h2>Settings</h2>
      </summary>
      <table>
        <tbody>
          {settings.map(([name, value]) => (
            <tr key={name}>
              <th scope="row">
                <code>{name}</code>
              </th>
              <td className="number">{String(value)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
