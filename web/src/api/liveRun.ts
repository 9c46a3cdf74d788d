/** The state of one run, as its events build it up: curves, use of resources, and the log. */

import type { LogLine, MetricsEvent, ResourcesEvent, Run } from "./types";

/** Lines that are kept; the server has them all. */
export const MOST_LINES = 10_000;

export interface LiveRun {
  run: Run | null;
  /** In order of their steps. */
  metrics: MetricsEvent[];
  /** In order of time. */
  resources: ResourcesEvent[];
  /** Of all ranks, in order of their numbers. */
  log: LogLine[];
}

export type RunEvent =
  | { type: "run"; data: Run }
  | { type: "metrics"; data: MetricsEvent }
  | { type: "resources"; data: ResourcesEvent }
  | { type: "log"; data: LogLine };

export const NOTHING_YET: LiveRun = { run: null, metrics: [], resources: [], log: [] };

/** Apply events in their order; a stream that was resumed may repeat some. */
export function applyEvents(state: LiveRun, events: readonly RunEvent[]): LiveRun {
  const next = { ...state, metrics: [...state.metrics], resources: [...state.resources] };
  const lines: LogLine[] = [];
  for (const event of events) {
    if (event.type === "run") next.run = event.data;
    else if (event.type === "metrics") appendMetrics(next.metrics, event.data);
    else if (event.type === "resources") appendResources(next.resources, event.data);
    else lines.push(event.data);
  }
  if (lines.length) next.log = withLines(state.log, lines);
  return next;
}

/** Append a point; a resumed run repeats the steps since its checkpoint, and the new ones count. */
function appendMetrics(points: MetricsEvent[], point: MetricsEvent): void {
  while (points.length && points.at(-1)!.step > point.step) points.pop();
  const last = points.at(-1);
  if (last?.step !== point.step) points.push(point);
  else points[points.length - 1] = { ...point, values: { ...last.values, ...point.values } };
}

function appendResources(points: ResourcesEvent[], point: ResourcesEvent): void {
  const last = points.at(-1);
  if (!last || point.seconds > last.seconds) points.push(point);
}

function withLines(log: LogLine[], lines: LogLine[]): LogLine[] {
  const last = log.at(-1)?.n ?? 0;
  const news = lines.filter((line) => line.n > last);
  return news.length ? [...log, ...news].slice(-MOST_LINES) : log;
}

/** Pick the names of losses, which should fall, and of scores, which should rise. */
export function metricNames(metrics: readonly MetricsEvent[]): {
  losses: string[];
  scores: string[];
} {
  const names = [...new Set(metrics.flatMap((each) => Object.keys(each.values)))];
  return {
    losses: names.filter((name) => name.includes("loss")),
    scores: names.filter((name) => name.startsWith("validation") && !name.includes("loss")),
  };
}
