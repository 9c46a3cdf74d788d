/* The page of `citeflow serve` for pictures: drop or draw one, and read what it most likely shows. */

import { Problem, call, chance, count, facts, make, problemLine } from "./shared.js";

const PATIENCE_MS = 200; // before it is said that an answer takes time
const NUM_CLASSES = 5;
const PREVIEW = 520; // pixels of its longer side
const PEN = 1 / 13; // of the drawing's side: about two of 28 pixels

const $ = (id) => document.getElementById(id);

// Answers

let current = new AbortController();

/** Ask what a picture shows. */
async function ask(blob, name) {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const patience = setTimeout(() => settle("Asking…", true), PATIENCE_MS);
  try {
    const path = `v1/images:classify?k=${NUM_CLASSES}`;
    render(blob, name, await call(path, { body: blob, signal }));
    settle("Answered");
  } catch (error) {
    if (signal.aborted) return;
    $("result").replaceChildren(problemLine(error, () => ask(blob, name)));
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

function render(blob, name, answer) {
  const [best] = answer.predictions;
  document.title = `${best.label} · citeflow`;
  const picture = make("canvas", { role: "img", ariaLabel: name, width: 1, height: 1 });
  paint(picture, blob);
  const items = answer.predictions.map((each) =>
    make("li", { className: "prediction" }, [
      make("span", { className: "rank" }, [String(each.rank)]),
      make("h3", {}, [each.label]),
      chance(each.probability),
    ]),
  );
  const about = make("div", {}, [
    make("h2", {}, [best.label]),
    facts([name, `${answer.width} × ${answer.height} pixels`]),
  ]);
  if (answer.remarks.length) {
    const remarks = answer.remarks.map((each) => make("li", {}, [each]));
    about.append(make("ul", { className: "remarks" }, remarks));
  }
  $("result").replaceChildren(
    make("div", { className: "grid" }, [
      make("div", { className: "card asked" }, [picture, about]),
      make("div", { className: "card" }, [make("ol", { className: "list" }, items)]),
    ]),
  );
}

/** Paint a picture: the policy of the page allows an image no address that is not the server's. */
async function paint(canvas, blob) {
  const bitmap = await createImageBitmap(blob);
  const scale = Math.min(1, PREVIEW / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, bitmap.width * scale);
  canvas.height = Math.max(1, bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

// A file

function take(file) {
  if (file) ask(file, file.name || "A pasted picture");
}

function onDrag(event) {
  event.preventDefault();
  $("drop").classList.toggle("is-over", event.type === "dragover");
  if (event.type === "drop") take(event.dataTransfer.files[0]);
}

// A drawing

const pen = $("drawing").getContext("2d");

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, $("drawing").width, $("drawing").height);
}

/** Give the drawing the shape of the images that the model takes. */
function shape(width, height) {
  const scale = 280 / Math.max(width, height);
  $("drawing").width = Math.round(width * scale);
  $("drawing").height = Math.round(height * scale);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 280 * PEN;
  pen.lineCap = pen.lineJoin = "round";
  clear();
}

function onPen(event) {
  const canvas = $("drawing");
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) * canvas.width) / box.width;
  const y = ((event.clientY - box.top) * canvas.height) / box.height;
  if (event.type === "pointerdown") {
    canvas.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(x, y);
  }
  if (event.buttons || event.type === "pointerup") {
    pen.lineTo(x, y);
    pen.stroke();
  }
  if (event.type === "pointerup") canvas.toBlob((blob) => ask(blob, "Your drawing"));
}

// Start

async function introduce() {
  const about = await call("v1/about", { signal: new AbortController().signal });
  const kinds = `one of ${count(about.classes.length)} classes`;
  const score = `Validation accuracy ${about.valid_accuracy.toFixed(4)}.`;
  const size = `${about.width} × ${about.height} pixels`;
  const dataset = about.dataset ? ` of ${about.dataset}` : "";
  $("about").textContent = `Which ${kinds}${dataset} a picture most likely shows. ${score}`;
  $("made-by").textContent =
    `citeflow ${about.citeflow} · ${about.name} · ${about.architecture}, ${size} · index ${about.version.slice(0, 12)}`;
  shape(about.width, about.height);
}

$("file").addEventListener("change", () => take($("file").files[0]));
for (const type of ["dragover", "dragleave", "drop"]) $("drop").addEventListener(type, onDrag);
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const type of ["pointerdown", "pointermove", "pointerup"]) {
  $("drawing").addEventListener(type, onPen);
}
$("clear").addEventListener("click", clear);
shape(1, 1);
introduce().catch((error) => ($("about").textContent = error.message));
