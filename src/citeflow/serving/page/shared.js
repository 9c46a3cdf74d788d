/* Calls of the server, and elements: what the pages of all tasks share. */

const WAIT_MS = 30_000; // of any call

export class Problem extends Error {
  constructor(message, hint = "") {
    super(message);
    this.hint = hint;
  }
}

/**
 * Call the server; a fault becomes a Problem, a call that a newer one replaces an AbortError.
 *
 * A body is sent as JSON, or as it is where it is a file.
 */
export async function call(path, { body, signal }) {
  const limit = AbortSignal.timeout(WAIT_MS);
  const request = { signal: AbortSignal.any([signal, limit]) };
  if (body) {
    request.method = "POST";
    const isFile = body instanceof Blob;
    request.headers = { "Content-Type": isFile ? body.type : "application/json" };
    request.body = isFile ? body : JSON.stringify(body);
  }
  try {
    const answer = await fetch(path, request);
    if (answer.ok) return await answer.json();
    throw await problemOf(answer);
  } catch (error) {
    if (signal.aborted || error instanceof Problem) throw error;
    const isSlow = error.name === "TimeoutError";
    throw new Problem(
      isSlow ? `no answer within ${WAIT_MS / 1000} s` : "the server does not answer",
    );
  }
}

async function problemOf(answer) {
  const told = await answer.json().catch(() => ({})); // what is between may answer with a page
  const wait = answer.headers.get("Retry-After");
  const hint = told.hint ?? (wait ? `again in ${wait} s` : "");
  return new Problem(told.detail || told.title || `HTTP ${answer.status}`, hint);
}

/** Make the line that says what went wrong, with a button that tries again. */
export function problemLine(error, again) {
  const line = make("p", { className: "problem card", role: "alert" }, [
    error instanceof Problem ? error.message : "this page has a fault of its own",
  ]);
  if (error.hint) line.append(make("span", {}, [error.hint]));
  line.append(
    make("button", { type: "button", className: "plain", onclick: again }, ["Try again"]),
  );
  return line;
}

/** Make the figure and the bar of a probability. */
export function chance(probability) {
  const bar = make("b");
  bar.style.width = `${100 * probability}%`;
  const rounded = probability > 0.995 ? "> 0.99" : probability.toFixed(2);
  return make("span", { className: "chance", title: `probability ${probability.toFixed(4)}` }, [
    rounded,
    make("i", { ariaHidden: "true" }, [bar]),
  ]);
}

/** Make an element; text is never read as HTML. */
export function make(tag, properties = {}, children = []) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const count = (number) => Number(number).toLocaleString("en");

export const facts = (words) => make("p", { className: "facts" }, [words.filter(Boolean).join(" · ")]);
