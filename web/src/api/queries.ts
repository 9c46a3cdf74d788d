/** What the pages ask the server for, each under its key in the cache of React Query. */

import {
  infiniteQueryOptions,
  keepPreviousData,
  MutationCache,
  QueryCache,
  QueryClient,
  queryOptions,
} from "@tanstack/react-query";

import { get, post, Problem } from "./client";
import type * as api from "./types";

const RUNS_EVERY_MS = 3000;
const STATE_EVERY_MS = 5000;
const INDEX_WAIT_MS = 300_000; // The first question to a model makes its index.

/** The session may end at any call; then the page is that for logging in. */
const onError = (error: Error) => {
  if (isLoggedOut(error)) queryClient.setQueryData(me.queryKey, null);
};

export const queryClient: QueryClient = new QueryClient({
  queryCache: new QueryCache({ onError }),
  mutationCache: new MutationCache({ onError }),
  defaultOptions: {
    queries: {
      staleTime: 2000,
      retry: (times, error) => times < 2 && error instanceof Problem && error.status === 0,
    },
  },
});

const isLoggedOut = (error: unknown) => error instanceof Problem && error.status === 401;

/** What somebody may do who is not logged in; `token` is that of a link that opens an account. */
export const setup = (token = "") =>
  queryOptions({
    queryKey: ["setup", token],
    queryFn: () => get<api.Setup>("/setup", { token }),
  });

export const me = queryOptions({
  queryKey: ["me"],
  queryFn: async (): Promise<api.Me | null> => {
    try {
      return await get<api.Me>("/me");
    } catch (error) {
      if (isLoggedOut(error)) return null;
      throw error;
    }
  },
});

export const sizes = queryOptions({
  queryKey: ["sizes"],
  queryFn: () => get<api.Size[]>("/sizes"),
  staleTime: Infinity,
});

export const environment = queryOptions({
  queryKey: ["environment"],
  queryFn: async (): Promise<api.Environment | null> => {
    try {
      return await get<api.Environment>("/environment");
    } catch (error) {
      if (error instanceof Problem && error.status === 404) return null;
      throw error;
    }
  },
  refetchInterval: STATE_EVERY_MS,
});

export const form = (task: api.Task) =>
  queryOptions({
    queryKey: ["form", task],
    queryFn: () => get<api.Form>(`/form/${task}`),
    staleTime: Infinity,
  });

export const preview = (submission: api.Submission) =>
  queryOptions({
    queryKey: ["preview", submission],
    queryFn: ({ signal }) => post<api.Preview>("/runs/preview", submission, { signal }),
    placeholderData: keepPreviousData,
    retry: false,
  });

export const uploads = queryOptions({
  queryKey: ["uploads"],
  queryFn: async () => (await get<{ uploads: api.Upload[] }>("/uploads")).uploads,
});

/** The runs of a state, or all, the newest first; each page ends before a time, s since 1970. */
export const runs = (state: api.State | "", limit = 50) =>
  infiniteQueryOptions({
    queryKey: ["runs", state, limit],
    queryFn: async ({ pageParam }) =>
      (await get<{ runs: api.Run[] }>("/runs", { state, limit, before: pageParam })).runs,
    initialPageParam: undefined as number | undefined,
    getNextPageParam: (page) => {
      const last = page.at(-1);
      return last && page.length === limit ? Date.parse(last.created) / 1000 : undefined;
    },
    select: ({ pages }) => pages.flat(),
    placeholderData: keepPreviousData,
    refetchInterval: RUNS_EVERY_MS,
  });

export const run = (id: string) =>
  queryOptions({
    queryKey: ["run", id],
    queryFn: () => get<api.Run>(`/runs/${encodeURIComponent(id)}`),
  });

export const comparison = (ids: string[]) =>
  queryOptions({
    queryKey: ["comparison", ids],
    queryFn: () => get<api.Comparison>("/runs/compare", { ids: ids.join(",") }),
    enabled: ids.length > 1,
  });

export const models = queryOptions({
  queryKey: ["models"],
  queryFn: async () => (await get<{ models: api.Model[] }>("/models")).models,
  refetchInterval: STATE_EVERY_MS,
});

/** The papers that a search finds; without words, some to begin with. */
export const papers = (model: string, words: string) =>
  queryOptions({
    queryKey: ["papers", model, words],
    queryFn: async ({ signal }) => {
      const path = `/try/${encodeURIComponent(model)}/papers`;
      const more = { signal, wait: INDEX_WAIT_MS };
      return (await get<{ papers: api.Paper[] }>(path, { words }, more)).papers;
    },
    staleTime: words ? 0 : Infinity,
    // Until the new ones are there: those of fewer letters, but no examples, which nobody has sought.
    placeholderData: (before, query) => (words && query?.queryKey[2] ? before : undefined),
  });

export const users = queryOptions({
  queryKey: ["users"],
  queryFn: async () => (await get<{ users: api.User[] }>("/users")).users,
  refetchInterval: STATE_EVERY_MS,
});
