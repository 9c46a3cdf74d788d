/* The page of `citeflow serve`: ask for the citations that a paper lacks, and read and see why.

   The fragment of the address is the whole state, so that back, reload and a shared link work:
   #paper=ID, or any of title, abstract, references and date; k, since, cited and exact beside. */

import { GROUPS, draw } from "./drawing.js";
import { Problem, call, chance, count, facts, make, problemLine } from "./shared.js";

const PAUSE_MS = 150; // after the last key, before a search
const PATIENCE_MS = 200; // before it is said that an answer takes time
const NEW = ["title", "abstract", "references", "date"];

const $ = (id) => document.getElementById(id);

// State

function readState() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

/** Return the address of a state, with the options as they are set. */
function linkTo(state) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...state, ...options() })) {
    if (value) words.set(key, value);
  }
  return `#${words}`;
}

const linkToPaper = (id) => linkTo({ paper: String(id) });

/** Return the options that differ from what is usual. */
function options() {
  const k = $("k").value;
  return {
    k: k === "10" ? "" : k,
    since: $("since").value.trim(),
    cited: $("cited").checked ? "1" : "",
    exact: $("exact").checked ? "1" : "",
  };
}

function fillIn(state) {
  $("k").value = [...$("k").options].some((each) => each.value === state.k) ? state.k : "10";
  $("since").value = state.since ?? "";
  $("cited").checked = Boolean(state.cited);
  $("exact").checked = Boolean(state.exact);
  if (!state.paper) for (const key of NEW) $(key).value = state[key] ?? "";
}

function wanted() {
  const body = {
    k: Number($("k").value),
    exclude_cited: !$("cited").checked,
    exact: $("exact").checked,
  };
  const since = $("since").value.trim();
  return since ? { ...body, since } : body;
}

function newPaper(state) {
  const references = (state.references ?? "").split(/[\n,]+/).map((id) => id.trim());
  const paper = { references: references.filter(Boolean) };
  for (const key of ["title", "abstract", "date"]) if (state[key]) paper[key] = state[key];
  return paper;
}

// Answers

let current = new AbortController();

/** Show what the address asks for. */
async function show() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const state = readState();
  fillIn(state);
  const isNew = NEW.some((key) => state[key]);
  if (!state.paper && !isNew) {
    $("result").replaceChildren();
    $("fold").open = true;
    document.title = "Missing citations · citeflow";
    return settle("");
  }
  $("fold").open = !state.paper;
  const patience = setTimeout(() => settle("Asking…", true), PATIENCE_MS);
  try {
    const [asked, answer] = state.paper
      ? await askKnown(state.paper, signal)
      : await askNew(state, signal);
    render(asked, answer);
    settle(`${answer.predictions.length} papers found`);
    if (!$("options").contains(document.activeElement)) lead();
  } catch (error) {
    if (signal.aborted) return;
    $("result").replaceChildren(problemLine(error, show));
    settle("");
    if (!(error instanceof Problem)) throw error;
  } finally {
    clearTimeout(patience);
  }
}

/** Say how it stands: for all to see while something is asked for, else for screen readers. */
function settle(said, isAsking = false) {
  $("progress").textContent = said;
  $("progress").classList.toggle("is-asking", isAsking);
  $("result").ariaBusy = String(isAsking);
}

async function askKnown(id, signal) {
  const path = `v1/papers/${encodeURIComponent(id)}`;
  const [paper, answer] = await Promise.all([
    call(path, { signal }),
    call(`${path}/citations`, { body: wanted(), signal }),
  ]);
  return [{ ...paper, label: paper.title || `Paper ${paper.id}` }, answer];
}

async function askNew(state, signal) {
  const paper = newPaper(state);
  const answer = await call("v1/citations", { body: { ...paper, ...wanted() }, signal });
  const label = state.title || "A new paper";
  const num_references = paper.references.length;
  return [{ isNew: true, label, date: state.date, references: [], num_references }, answer];
}

/** Move to the answer: the link that was followed is gone. */
function lead() {
  const heading = $("result").querySelector("h2");
  heading.focus({ preventScroll: true });
  const { top } = $("result").getBoundingClientRect();
  if (top < 0 || top > innerHeight * 0.6) $("result").scrollIntoView();
}

function render(asked, answer) {
  document.title = `${asked.label} · citeflow`;
  const titles = new Map(
    asked.references.filter((each) => each.title).map((each) => [String(each.id), each.title]),
  );
  for (const each of answer.predictions) if (each.title) titles.set(String(each.id), each.title);
  const items = answer.predictions.map((each) => predictionItem(each, titles));
  const card = make("div", { className: "card" }, [
    items.length
      ? make("ol", { className: "list" }, items)
      : make("p", { className: "remark" }, [
          "No paper found: there is none that fits, or none that it does not cite.",
        ]),
  ]);
  const parts = [card];
  if (items.length) parts.push(drawingCard(asked, answer.predictions, titles, items));
  $("result").replaceChildren(heading(asked, answer), make("div", { className: "grid" }, parts));
}

function heading(asked, answer) {
  const card = make("div", { className: "card" }, [
    make("h2", { tabIndex: -1 }, [asked.label]),
    facts([
      asked.isNew ? "" : `id ${asked.id}`,
      asked.date,
      asked.isNew ? "" : `cited by ${count(asked.cited_by)}`,
      `cites ${count(asked.num_references)}`,
    ]),
  ]);
  if (answer.remarks.length) {
    const remarks = answer.remarks.map((each) => make("li", {}, [each]));
    card.append(make("ul", { className: "remarks" }, remarks));
  }
  if (!asked.isNew && asked.references.length) card.append(referenceList(asked));
  return card;
}

function referenceList({ references, num_references }) {
  const items = references.map((each) => make("li", {}, [paperLink(each.id, each.title)]));
  const more = num_references - references.length;
  if (more > 0) items.push(make("li", {}, [`and ${count(more)} more`]));
  return make("details", { className: "cites" }, [
    make("summary", {}, ["What it cites"]),
    make("ul", {}, items),
  ]);
}

function predictionItem(each, titles) {
  const reasons = each.reasons.map((reason) =>
    make("li", { className: GROUPS[reason.kind] ?? "popular" }, reasonParts(reason, titles)),
  );
  return make("li", {}, [
    make("span", { className: "rank" }, [String(each.rank)]),
    make("h3", {}, [paperLink(each.id, each.title)]),
    chance(each.probability),
    facts([each.title ? `id ${each.id}` : "", each.date, each.is_cited ? "cited already" : ""]),
    make("ul", { className: "reasons" }, reasons),
  ]);
}

/**
 * Split the words of a reason so that the papers that it names are links, and learn their titles.
 *
 * It names papers in the order of its lists, each as `ID` or as `"title" (ID)`.
 */
function reasonParts({ text, papers = [], citing = [] }, titles) {
  const parts = [];
  let done = 0;
  for (const id of [...papers, ...citing].map(String)) {
    const found = findPaper(text, id, done);
    if (!found) continue;
    const [start, end] = found;
    const label = text.slice(start, end);
    if (label !== id && !titles.has(id)) titles.set(id, label.slice(1, -` (${id})`.length - 1));
    parts.push(text.slice(done, start), make("a", { href: linkToPaper(id) }, [label]));
    done = end;
  }
  return [...parts, text.slice(done)];
}

/** Return where a paper is named in a text from `from` on, if it is. */
function findPaper(text, id, from) {
  const titled = text.indexOf(`" (${id})`, from);
  if (titled >= 0) return [text.indexOf('"', from), titled + `" (${id})`.length];
  for (let at = text.indexOf(id, from); at >= 0; at = text.indexOf(id, at + 1)) {
    const around = [text[at - 1] ?? " ", text[at + id.length] ?? " "];
    if (around[0] === " " && " ,".includes(around[1])) return [at, at + id.length];
  }
  return null;
}

/** Make the drawing, drawn again when its width changes, and lit up with the list. */
function drawingCard(asked, predictions, titles, items) {
  const figure = make("figure", { className: "card" });
  const legend = make("ul", { className: "legend", ariaHidden: "true" });
  const caption = make("figcaption", {}, [
    "Point at a paper to see its paths; the list says the same in words.",
  ]);
  let drawing = null;
  const refresh = () => {
    const style = getComputedStyle(figure);
    const width =
      figure.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (width < 50 || drawing?.width === width) return;
    const made = draw({ asked, predictions, titles, linkTo: linkToPaper, width });
    legend.replaceChildren(
      ...made.legend.map(([group, words]) => make("li", { className: group }, [words])),
    );
    figure.replaceChildren(legend, made.element, caption);
    drawing = { ...made, width };
  };
  new ResizeObserver(refresh).observe(figure);
  items.forEach((item, index) => {
    const light = (isOn) => {
      item.classList.toggle("lit", isOn);
      drawing?.light(isOn ? predictions[index].rank : 0);
    };
    item.addEventListener("pointerenter", () => light(true));
    item.addEventListener("pointerleave", () => light(false));
    item.addEventListener("focusin", () => light(true));
    item.addEventListener("focusout", () => light(false));
  });
  return figure;
}

// Pieces

const paperLink = (id, title) => make("a", { href: linkToPaper(id) }, [title || String(id)]);

// Search

const search = { timer: 0, calls: new AbortController(), papers: [], active: -1 };

function searchSoon() {
  clearTimeout(search.timer);
  search.timer = setTimeout(() => find(), PAUSE_MS);
}

/** Look up what is typed; with `enter`, open it if it can only be one paper. */
async function find({ enter = false } = {}) {
  clearTimeout(search.timer);
  search.calls.abort();
  search.calls = new AbortController();
  const { signal } = search.calls;
  const words = $("search").value.trim();
  if (!words) return list([], "");
  try {
    const { papers } = await call(`v1/papers?q=${encodeURIComponent(words)}&limit=10`, { signal });
    const only =
      papers.find((each) => String(each.id) === words) ?? (papers.length === 1 ? papers[0] : null);
    if (enter && only) return open(only);
    const said = papers.length
      ? `${papers.length === 10 ? "The first 10" : papers.length} found`
      : "No paper found";
    list(papers, papers.length ? said : `${said} for “${words}”`);
    if (enter && papers.length) activate(0);
  } catch (error) {
    if (!signal.aborted) list([], [error.message, error.hint].filter(Boolean).join("; "));
  }
}

function list(papers, said) {
  search.papers = papers;
  const items = papers.map((each, index) => {
    const about = [`id ${each.id}`, each.date, `cited by ${count(each.cited_by)}`];
    const item = make("li", { id: `found-${index}`, role: "option", ariaSelected: "false" }, [
      each.title || String(each.id),
      make("small", {}, [
        about
          .filter(Boolean)
          .slice(each.title ? 0 : 1)
          .join(" · "),
      ]),
    ]);
    item.addEventListener("click", () => open(each));
    return item;
  });
  $("found").replaceChildren(...items);
  unfold(items.length > 0);
  $("search-status").textContent = said;
}

function unfold(isOpen) {
  $("found").hidden = !isOpen;
  $("search").ariaExpanded = String(isOpen);
  activate(-1);
}

function activate(index) {
  const items = [...$("found").children];
  search.active = index;
  items.forEach((item, at) => (item.ariaSelected = String(at === index)));
  if (index < 0) return $("search").removeAttribute("aria-activedescendant");
  $("search").setAttribute("aria-activedescendant", items[index].id);
  items[index].scrollIntoView({ block: "nearest" });
}

function open(paper) {
  list([], "");
  $("search").value = "";
  go({ paper: String(paper.id) });
}

function go(state) {
  const link = linkTo(state);
  if (link === location.hash) show();
  else location.hash = link;
}

function onKey(event) {
  const number = search.papers.length;
  if (event.key === "Enter") {
    event.preventDefault();
    if (search.active >= 0) open(search.papers[search.active]);
    else find({ enter: true });
  } else if (event.key === "Escape") {
    if (!$("found").hidden) event.preventDefault(); // or the words were gone too
    unfold(false);
  } else if (number && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    event.preventDefault();
    const step = event.key === "ArrowDown" ? 1 : -1;
    const start = search.active < 0 && step < 0 ? 0 : search.active;
    if ($("found").hidden) unfold(true);
    activate((start + step + number) % number);
  }
}

// Start

/** Say what is served, and leave out what its graph has no use for. */
async function introduce() {
  const about = await call("v1/about", { signal: new AbortController().signal });
  const size = `${count(about.num_papers)} papers, ${count(about.num_citations)} citations`;
  $("about").textContent =
    `What a paper of ${about.dataset}, or a new one, most likely should cite and does not, with reasons. ${size}.`;
  $("made-by").textContent =
    `citeflow ${about.citeflow} · ${about.name} · index ${about.version.slice(0, 12)}`;
  for (const element of document.querySelectorAll(".of-text")) element.hidden = !about.has_text;
  $("dated").hidden = $("since-field").hidden = !about.has_dates;
  if (!about.has_titles) document.querySelector("label[for=search]").textContent = "Its id";
}

$("search").addEventListener("input", searchSoon);
$("search").addEventListener("keydown", onKey);
$("search").addEventListener("focus", () => unfold(search.papers.length > 0));
$("search").addEventListener("blur", () => unfold(false));
$("found").addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the focus
$("known").addEventListener("submit", (event) => event.preventDefault());
$("new").addEventListener("submit", (event) => {
  event.preventDefault();
  const state = Object.fromEntries(NEW.map((key) => [key, $(key).value.trim()]));
  const isEmpty = !state.title && !state.abstract && !newPaper(state).references.length;
  $("new-status").textContent = isEmpty ? "A title, an abstract or references are needed" : "";
  if (!isEmpty) go(state);
});
$("options").addEventListener("submit", (event) => event.preventDefault());
$("options").addEventListener("change", () => {
  if (!$("options").reportValidity()) return;
  const { paper, ...rest } = readState();
  const state = paper ? { paper } : Object.fromEntries(NEW.map((key) => [key, rest[key]]));
  if (Object.values(state).some(Boolean)) go(state);
});
addEventListener("hashchange", show);
introduce().catch((error) => ($("about").textContent = error.message));
show();
