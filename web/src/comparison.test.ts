import { expect, test } from "vitest";

import type { Run } from "./api/types";
import { bestOf, isOfOneDataset } from "./comparison";

const row = (better: "higher" | "lower", ...values: (number | null)[]) => ({
  metric: "",
  help: "",
  better,
  values,
});

test.each([
  [row("higher", 0.2, 0.3), [1]],
  [row("lower", 12, 15), [0]],
  [row("higher", 0.3, 0.3, 0.1), [0, 1]],
  [row("higher", 0.3, 0.3), []],
  [row("higher", null, 0.3), []],
])("bestOf %j is %j", (given, best) => expect([...bestOf(given)]).toEqual(best));

test.each([
  [["a", "a"], true],
  [["a", "b"], false],
  [["a", "a", "b"], false],
])("isOfOneDataset of runs on %j is %s", (datasets, is) =>
  expect(isOfOneDataset(datasets.map((dataset) => ({ dataset }) as Run))).toBe(is),
);
