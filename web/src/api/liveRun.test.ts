import { expect, test } from "vitest";

import { applyEvents, metricNames, MOST_LINES, NOTHING_YET, type RunEvent } from "./liveRun";

const metrics = (step: number, values: Record<string, number>): RunEvent => ({
  type: "metrics",
  data: { step, seconds: step / 10, values },
});
const line = (n: number): RunEvent => ({
  type: "log",
  data: { rank: n % 2, n, line: `line ${n}` },
});
const use = (seconds: number): RunEvent => ({
  type: "resources",
  data: { seconds, cores: 1, memory: 2, ranks: [] },
});
const all = (...events: RunEvent[]) => applyEvents(NOTHING_YET, events);

test("applyEvents joins what came in two events of a step", () => {
  const { metrics: points } = all(
    metrics(10, { loss: 2 }),
    metrics(20, { loss: 1 }),
    metrics(20, { "validation mrr": 0.5 }),
  );
  expect(points.map((each) => each.values)).toEqual([
    { loss: 2 },
    { loss: 1, "validation mrr": 0.5 },
  ]);
});

test("applyEvents replaces the curve beyond the step from which a run was resumed", () => {
  const before = all(metrics(10, { loss: 3 }), metrics(20, { loss: 2 }), metrics(30, { loss: 1 }));
  const { metrics: points } = applyEvents(before, [metrics(20, { loss: 2.5 })]);
  expect(points.map(({ step, values }) => [step, values.loss])).toEqual([
    [10, 3],
    [20, 2.5],
  ]);
});

test("applyEvents takes lines and figures that are repeated once", () => {
  const before = all(line(1), line(2), use(1), use(2));
  const after = applyEvents(before, [line(1), line(2), line(3), use(2), use(3)]);
  expect(after.log.map((each) => each.n)).toEqual([1, 2, 3]);
  expect(after.resources.map((each) => each.seconds)).toEqual([1, 2, 3]);
});

test("applyEvents keeps the last lines", () => {
  const many = Array.from({ length: MOST_LINES + 5 }, (_, index) => line(index + 1));
  const { log } = applyEvents(NOTHING_YET, many);
  expect([log.length, log[0]?.n]).toEqual([MOST_LINES, 6]);
});

test("applyEvents leaves the state before as it was", () => {
  const before = all(metrics(10, { loss: 3 }), line(1));
  applyEvents(before, [metrics(5, { loss: 1 }), line(2)]);
  expect([before.metrics.length, before.metrics[0]?.step, before.log.length]).toEqual([1, 10, 1]);
});

test("metricNames leaves out what is neither a loss nor a score", () => {
  const { metrics: points } = all(metrics(1, { loss: 1, lr: 0.1, "validation mrr": 0.5 }));
  expect(metricNames(points)).toEqual({ losses: ["loss"], scores: ["validation mrr"] });
});
