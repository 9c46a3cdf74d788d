/** Which version of a model counts, as the server has it. */

import type { Model, Version } from "./api/types";

export const CHAMPION = "champion";

export interface Answering {
  version: number;
  /** Why it is this one. */
  because: string;
}

/**
 * Return the version that answers: the deployed one, else the champion, else the newest; none with
 * code of its own, which only a training runs.
 */
export function answering({ versions: all, deployment }: Model): Answering | null {
  const versions = all.filter((each) => !each.has_code);
  if (deployment) return { version: deployment.version, because: "it is deployed" };
  const champion = versions.find((each) => each.aliases.includes(CHAMPION));
  if (champion) return { version: champion.version, because: "it is the champion" };
  const newest = newestOf(versions);
  return newest === null ? null : { version: newest, because: "it is the newest" };
}

const newestOf = (versions: Version[]) =>
  versions.length ? Math.max(...versions.map(({ version }) => version)) : null;
