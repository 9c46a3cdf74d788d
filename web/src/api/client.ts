/** Calls of the server's API; a fault of any kind becomes a Problem. */

const PREFIX = "/api/v1";
const WAIT_MS = 30_000;

/** Why a call did not do what it should, in words for the person who asked for it. */
export class Problem extends Error {
  override name = "Problem";

  constructor(
    message: string,
    /** HTTP status; 0 if there was no answer. */
    readonly status: number,
    readonly hint = "",
    /** The field of what was sent that is wrong, such as `train.minutes`. */
    readonly field = "",
  ) {
    super(message);
  }
}

type Words = Record<string, string | number | undefined>;

/** Return the address of a resource, with those words of its query that have a value. */
export function address(path: string, words: Words = {}): string {
  const given = Object.entries(words).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given.map(([key, value]) => [key, String(value)]));
  return PREFIX + path + (given.length ? `?${query}` : "");
}

export function get<T>(path: string, words: Words = {}, more: More = {}): Promise<T> {
  return call<T>("GET", address(path, words), more);
}

interface More {
  /** Of the attempt, so that a repeat of it makes no second one. */
  key?: string;
  /** How long to wait for the answer, ms. */
  wait?: number;
  signal?: AbortSignal;
}

export function post<T>(path: string, body?: unknown, more: More = {}): Promise<T> {
  return call<T>("POST", address(path), { body, ...more });
}

export function put<T>(path: string, body: unknown): Promise<T> {
  return call<T>("PUT", address(path), { body });
}

export function patch<T>(path: string, body: unknown): Promise<T> {
  return call<T>("PATCH", address(path), { body });
}

export function remove(path: string): Promise<void> {
  return call<void>("DELETE", address(path), {});
}

interface Options extends More {
  body?: unknown;
}

async function call<T>(method: string, url: string, options: Options): Promise<T> {
  const { body, key, signal, wait = WAIT_MS } = options;
  const limit = AbortSignal.timeout(wait);
  const headers: Record<string, string> = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let answer: Response;
  try {
    answer = await fetch(url, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw limit.aborted
      ? new Problem(`no answer within ${wait / 1000} seconds`, 0)
      : new Problem("the server does not answer", 0, "Is citeflow platform still running?");
  }
  const text = await answer.text();
  if (!answer.ok) throw problemOf(answer.status, text, answer.headers.get("Retry-After"));
  return (text ? JSON.parse(text) : undefined) as T;
}

/** Read an RFC 9457 problem; a proxy in between may have answered with a page instead. */
export function problemOf(status: number, text: string, retryAfter: string | null = null): Problem {
  let told: { title?: string; detail?: string; hint?: string; field?: string } = {};
  try {
    told = JSON.parse(text);
  } catch {
    // The status has to do.
  }
  const wait = retryAfter ? `Try again in ${retryAfter} seconds.` : "";
  const message = told.detail || told.title || `the server answered with status ${status}`;
  return new Problem(message, status, told.hint || wait, told.field);
}

/**
 * Send a file as the body of a request; XMLHttpRequest, because fetch does not tell how far it is.
 *
 * @param onProgress takes the share that was sent, 0 to 1
 */
export function upload<T>(
  path: string,
  words: Words,
  file: Blob,
  onProgress: (share: number) => void,
  signal: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path, words));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded / file.size));
    request.addEventListener("load", () => {
      const isFine = request.status >= 200 && request.status < 300;
      if (isFine) resolve(JSON.parse(request.responseText) as T);
      else reject(problemOf(request.status, request.responseText));
    });
    request.addEventListener("error", () => reject(new Problem("the upload broke off", 0)));
    request.addEventListener("abort", () => reject(new Problem("the upload was cancelled", 0)));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
