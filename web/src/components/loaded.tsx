import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";

import { ProblemNote } from "./problemNote";

interface Props<T> {
  query: UseQueryResult<T>;
  /** What is waited for, as "the runs". */
  what: string;
  children: (data: T) => ReactNode;
}

/** What a query answered; until then, and where it failed, a sentence. */
export function Loaded<T>({ query, what, children }: Props<T>) {
  if (query.data !== undefined) {
    return (
      <>
        {query.isError && <ProblemNote error={query.error} again={() => query.refetch()} />}
        {children(query.data)}
      </>
    );
  }
  if (query.isError) return <ProblemNote error={query.error} again={() => query.refetch()} />;
  return (
    <p className="waiting" role="status">
      Loading {what}…
    </p>
  );
}
