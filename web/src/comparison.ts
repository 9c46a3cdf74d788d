import type { Comparison } from "./api/types";

/** Return which values of a row are the best; none where they are all alike, or only one is known. */
export function bestOf({ values, better }: Comparison["rows"][number]): Set<number> {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return new Set();
  const best = better === "higher" ? Math.max(...known) : Math.min(...known);
  const where = values.flatMap((value, index) => (value === best ? [index] : []));
  return new Set(where.length < known.length ? where : []);
}
