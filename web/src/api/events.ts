/** The events of a run as a React hook: one stream, opened again where it broke off. */

import { useEffect, useReducer, useState } from "react";

import { address } from "./client";
import { applyEvents, NOTHING_YET, type LiveRun, type RunEvent } from "./liveRun";
import { me, queryClient } from "./queries";
import type { Run, State } from "./types";

const BATCH_MS = 100;
const RETRY_MS = 3000;
const TYPES = ["run", "metrics", "resources", "log"] as const;

export type Connection = "connecting" | "open" | "lost" | "ended";

export const hasEnded = (state: State) => ["stopped", "succeeded", "failed"].includes(state);

/**
 * Follow a run.
 *
 * The browser resumes a stream that the network cut, by Last-Event-ID. It gives up on an answer
 * that is none, as of a proxy while the server starts again; then a new stream goes on after the
 * last event that was seen.
 *
 * @param attempt a new value opens the stream again, as after a run that had ended was resumed
 */
export function useLiveRun(id: string, attempt = 0): LiveRun & { connection: Connection } {
  const [state, dispatch] = useReducer(reduce, NOTHING_YET);
  const [connection, setConnection] = useState<Connection>("connecting");

  useEffect(() => {
    let source: EventSource;
    let after: string | undefined;
    let isOver = false;
    let retry: ReturnType<typeof setTimeout>;
    let pending: RunEvent[] = [];
    const flush = () => {
      if (!pending.length) return;
      dispatch(pending);
      pending = [];
    };
    const flushing = setInterval(flush, BATCH_MS);

    const onError = () => {
      flush();
      if (isOver) source.close();
      else if (source.readyState === EventSource.CLOSED) {
        retry = setTimeout(open, RETRY_MS);
        void queryClient.invalidateQueries({ queryKey: me.queryKey }); // It may be the session.
      }
      setConnection(isOver ? "ended" : "lost");
    };
    const onEvent = (type: (typeof TYPES)[number], event: MessageEvent<string>) => {
      after = event.lastEventId || after;
      const data = JSON.parse(event.data);
      if (type === "run") isOver = hasEnded((data as Run).state);
      pending.push({ type, data });
    };
    const open = () => {
      source = new EventSource(address(`/runs/${encodeURIComponent(id)}/events`, { after }));
      source.addEventListener("open", () => setConnection("open"));
      source.addEventListener("error", onError);
      for (const type of TYPES) source.addEventListener(type, (event) => onEvent(type, event));
    };
    dispatch("forget");
    open();
    return () => {
      source.close();
      clearTimeout(retry);
      clearInterval(flushing);
    };
  }, [id, attempt]);

  return { ...state, connection };
}

function reduce(state: LiveRun, events: RunEvent[] | "forget"): LiveRun {
  return events === "forget" ? NOTHING_YET : applyEvents(state, events);
}
