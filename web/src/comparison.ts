import type { Comparison } from "./api/types";

/** Return which values of a row are the best; none where they are all alike, or only one is known. */
export function bestOf({ values, better }: Comparison["rows"][number]): Set<number> {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return new Set();
  const best = better === "higher" ? Math.max(...known) : Math.min(...known);
  const where = values.flatMap((value, index) => (value === best ? [index] : []));
  return new Set(where.length < known.length ? where : []);
}

/** Tell whether all runs are on the same data, by its name: only then their scores compare. */
export const isOfOneDataset = (runs: Comparison["runs"]) =>
  new Set(runs.map(({ task, dataset }) => `${task} ${dataset}`)).size <= 1;
