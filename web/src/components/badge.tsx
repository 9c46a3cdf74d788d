import type { Run, State } from "../api/types";

const WORDS: Record<State, string> = {
  queued: "Queued",
  running: "Running",
  stopping: "Stopping",
  stopped: "Stopped",
  succeeded: "Succeeded",
  failed: "Failed",
};

export const STATES = Object.entries(WORDS) as [State, string][];

/** The state of a run in a word, and its place if it waits. */
export function StateBadge({ run }: { run: Run }) {
  const place =
    run.state === "queued" && run.queue_position ? ` · place ${run.queue_position}` : "";
  return <Badge kind={run.state} words={WORDS[run.state] + place} />;
}

/** A word with a coloured dot; `kind` is a class of the style sheet. */
export function Badge({ kind, words }: { kind: string; words: string }) {
  return <span className={`badge ${kind}`}>{words}</span>;
}
