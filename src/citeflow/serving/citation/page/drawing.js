/* The neighbourhood of an answer: the paper asked for, the papers in between, and the predictions. */

const SVG = "http://www.w3.org/2000/svg";
const ROW = 34; // height of a row, px
const TOP = 30; // room for the captions of the columns
const RADIUS = 12; // of a prediction, which holds its rank
const BOX = 24; // height of a paper in between, px
const MOST_PREDICTIONS = 10;
const MOST_BETWEEN = 14;
const LETTER = 7; // width of a letter, px: rather more than the mean

/** Group of each kind of reason, which has a colour and a line in the legend. */
export const GROUPS = {
  reference_of_reference: "references",
  bibliographic_coupling: "coupling",
  co_citation: "together",
  cited_together: "together",
  reference_of_similar: "alike",
  similar_to_reference: "alike",
  similar_text: "alike",
  similar_features: "alike",
  popularity: "popular",
};

const LEGEND = {
  references: "cited by it",
  coupling: "cites it too",
  together: "cited together",
  alike: "alike",
};

/**
 * Draw an answer. The list beside it says all of this in words, so assistive technology skips it.
 *
 * @param {object} asked `label` of the paper asked for; its `references`, objects with `id`, `title`
 * @param {object[]} predictions of the answer
 * @param {Map<string, string>} titles that are known, by id
 * @param {(id: string) => string} linkTo address of a paper in this page
 * @param {number} width of the drawing, px
 * @returns {{element: SVGElement, legend: [string, string][], light: (rank: number) => void}} `light`
 *   brings out the paths to a prediction; 0 all of them
 */
export function draw({ asked, predictions, titles, linkTo, width }) {
  const shown = predictions.slice(0, MOST_PREDICTIONS);
  const between = papersBetween(shown);
  const onPath = new Set(between.map((each) => each.id));
  const others = asked.references.filter((each) => !onPath.has(String(each.id)));
  const column = { source: 10, between: width * 0.15, predictions: width - RADIUS - 2 };
  const box = { x: column.between, width: width * 0.5, height: BOX };
  const perRow = Math.max(1, Math.floor((width - column.between) / 14));
  const rows = Math.max(shown.length, between.length, 1);
  const below = others.length ? 34 + 14 * Math.ceil(others.length / perRow) : 0;
  const height = TOP + rows * ROW + below;
  const y = (index, count) => TOP + ((index + 0.5) * rows * ROW) / count;
  const middle = TOP + (rows * ROW) / 2;

  const paths = [];
  const nodes = [];
  between.forEach((each, index) => {
    each.y = y(index, between.length);
    paths.push(path("first", [column.source, middle], [column.between, each.y], [...each.ranks]));
    const title = name(each.id, titles);
    const shape = make("rect", { ...box, y: each.y - BOX / 2, rx: 6 });
    const label = text("", { x: box.x + 8, y: each.y + 4 }, cut(title, (box.width - 14) / LETTER));
    nodes.push(
      node("between", [shape, label], { ranks: [...each.ranks], title, href: linkTo(each.id) }),
    );
  });
  const byId = new Map(between.map((each) => [each.id, each]));
  shown.forEach((each, index) => {
    const at = [column.predictions, y(index, shown.length)];
    for (const reason of each.reasons) {
      const group = GROUPS[reason.kind] ?? "popular";
      for (const id of reason.papers ?? []) {
        const over = byId.get(String(id));
        if (over) paths.push(path(group, [box.x + box.width, over.y], at, [each.rank], over.id));
      }
      if (!reason.papers?.length && group === "alike") {
        paths.push(path(`${group} direct`, [column.source, middle], at, [each.rank]));
      }
    }
    const shape = circle(...at, RADIUS);
    const label = text("", { x: at[0], y: at[1] + 4 }, String(each.rank));
    const title = name(each.id, titles);
    nodes.push(
      node("prediction", [shape, label], { ranks: [each.rank], title, href: linkTo(each.id) }),
    );
  });
  others.forEach((each, index) => {
    const x = column.between + 4 + (index % perRow) * 14;
    const shape = circle(x, TOP + rows * ROW + 32 + Math.floor(index / perRow) * 14, 4);
    nodes.push(
      node("other", [shape], { ranks: [], title: name(each.id, titles), href: linkTo(each.id) }),
    );
  });
  const ranks = shown.map((each) => each.rank);
  nodes.push(node("source", [circle(column.source, middle, 8)], { ranks, title: asked.label }));

  const captions = [
    text("caption", { x: 0, y: 12 }, "paper"),
    text("caption", { x: column.between, y: 12 }, between.length ? "papers in between" : ""),
    text("caption", { x: width, y: 12, "text-anchor": "end" }, "found"),
  ];
  if (others.length) {
    const said = `${between.length ? "its other references" : "its references"}: ${others.length}`;
    const under = TOP + rows * ROW + 18;
    captions.push(text("caption", { x: column.between, y: under }, said));
  }
  const size = { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" };
  const element = make("svg", size, [...paths, ...nodes, ...captions]);
  const drawn = new Set(paths.map((each) => each.classList[0]));
  const legend = Object.entries(LEGEND).filter(([group]) => drawn.has(group));
  return { element, legend, light: lighting(element, [...paths, ...nodes]) };
}

/** Return the papers that most paths lead over, in an order in which few paths cross. */
function papersBetween(predictions) {
  const found = new Map();
  for (const { rank, reasons } of predictions) {
    for (const reason of reasons) {
      for (const id of (reason.papers ?? []).map(String)) {
        const each = found.get(id) ?? { id, ranks: new Set(), weight: 0 };
        each.ranks.add(rank);
        each.weight += 1 / rank;
        found.set(id, each);
      }
    }
  }
  const mean = ({ ranks }) => [...ranks].reduce((sum, rank) => sum + rank, 0) / ranks.size;
  return [...found.values()]
    .sort((one, two) => two.weight - one.weight)
    .slice(0, MOST_BETWEEN)
    .sort((one, two) => mean(one) - mean(two));
}

/** Return what brings out the paths to a rank, and let the pointer do the same. */
function lighting(element, parts) {
  const show = (chosen, between = "") => {
    element.classList.toggle("is-lit", chosen.length > 0);
    for (const part of parts) {
      const { ranks, over } = part.drawn;
      const isOn =
        ranks.some((rank) => chosen.includes(rank)) && (!between || !over || over === between);
      part.classList.toggle("lit", chosen.length > 0 && isOn);
    }
  };
  for (const part of parts.filter((each) => each.localName === "g" && each.drawn.ranks.length)) {
    part.addEventListener("pointerenter", () => show(part.drawn.ranks));
    part.addEventListener("pointerleave", () => show([]));
  }
  return (rank) => show(rank ? [rank] : []);
}

function node(kind, shapes, { ranks, title, href }) {
  const inside = [make("title", {}, [title]), ...shapes];
  const content = href ? [make("a", { href, tabindex: -1 }, inside)] : inside;
  const group = make("g", { class: kind }, content);
  group.drawn = { ranks };
  return group;
}

const circle = (cx, cy, r) => make("circle", { cx, cy, r });

function path(kind, [x, y], [toX, toY], ranks, over = "") {
  const bend = (toX - x) * 0.5;
  const d = `M${x},${y}C${x + bend},${y} ${toX - bend},${toY} ${toX},${toY}`;
  const element = make("path", { class: kind, d });
  element.drawn = { ranks, over };
  return element;
}

function text(kind, place, words) {
  return make("text", { ...place, class: kind }, [words]);
}

function make(tag, attributes, children = []) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function name(id, titles) {
  return titles.get(String(id)) || String(id);
}

function cut(words, most) {
  return words.length > most ? `${words.slice(0, Math.max(4, most - 1)).trimEnd()}…` : words;
}
