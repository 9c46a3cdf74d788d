import { useEffect, useLayoutEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

const HEIGHT = 210;
const LETTER = 7; // width of a letter of an axis, px: rather more than the mean
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);
const COLOURS = ["blue", "vermillion", "green", "purple", "orange", "grey"];
const DARK = matchMedia("(prefers-color-scheme: dark)");

export interface Series {
  name: string;
  /** x and y, in order of x. */
  points: [number, number][];
}

interface Props {
  title: string;
  /** What the quantity is, in a sentence. */
  help?: string;
  /** What x is, as "step". */
  along: string;
  series: Series[];
  /** Writes a value of y. */
  format: (value: number) => string;
  /** Writes a value of x. */
  formatX: (value: number) => string;
  /** Whether the axis of y begins at zero. */
  fromZero?: boolean;
  /** Whether y is in bytes, whose ticks are powers of 2. */
  isBinary?: boolean;
  /** What is said where there are no points. */
  empty?: string;
}

/** Curves of one quantity. What the pointer is at, else the last values, stand in the legend. */
export function Chart({
  title,
  help,
  along,
  series,
  format,
  formatX,
  fromZero = false,
  isBinary = false,
  empty = "No values.",
}: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>(null);
  const [at, setAt] = useState<number | null>(null);
  const isDark = useSyncExternalStore(onScheme, () => DARK.matches);
  const names = series.map((each) => each.name).join("\n");
  const data = useMemo(() => joined(series), [series]);
  const latest = useRef({ data, format, formatX });
  useLayoutEffect(() => {
    latest.current = { data, format, formatX };
  });
  const isEmpty = data[0].length === 0;

  useEffect(() => {
    const element = host.current;
    if (!element || isEmpty) return;
    const shape = { names: names.split("\n"), width: element.clientWidth, fromZero, isBinary };
    const options = optionsOf(shape, {
      y: (value) => latest.current.format(value),
      x: (value) => latest.current.formatX(value),
      at: setAt,
    });
    const made = new uPlot(options, latest.current.data, element);
    plot.current = made;
    const observer = new ResizeObserver(() =>
      made.setSize({ width: element.clientWidth, height: HEIGHT }),
    );
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [names, fromZero, isBinary, isDark, isEmpty]);

  useEffect(() => plot.current?.setData(data), [data]);

  return (
    <figure className="card chart">
      <figcaption>
        <h3>{title}</h3>
        <ul className="legend">
          {series.map(({ name }, index) => {
            const value = valueAt(data, index + 1, at);
            return (
              <li key={name} className={COLOURS[index % COLOURS.length]}>
                {name} {value !== null && <b>{format(value)}</b>}
              </li>
            );
          })}
          {!isEmpty && <li className="at">{`${along} ${formatX(xAt(data, at))}`}</li>}
        </ul>
      </figcaption>
      {help && <p className="chart-help">{help}</p>}
      {isEmpty ? (
        <p className="remark">{empty}</p>
      ) : (
        <div
          ref={host}
          className="plot"
          role="img"
          aria-label={spoken(title, along, series, format)}
        />
      )}
    </figure>
  );
}

function onScheme(changed: () => void): () => void {
  DARK.addEventListener("change", changed);
  return () => DARK.removeEventListener("change", changed);
}

/** Put all series on the same x, with null where one has no point. */
function joined(series: Series[]): uPlot.AlignedData {
  const tables = series
    .filter((each) => each.points.length)
    .map(({ points }): uPlot.AlignedData => [points.map(([x]) => x), points.map(([, y]) => y)]);
  if (!tables.length) return [[], ...series.map(() => [])];
  const [xs, ...columns] = uPlot.join(tables);
  const filled = columns.values();
  const empty: null[] = Array.from(xs, () => null);
  return [xs, ...series.map((each) => (each.points.length ? filled.next().value! : empty))];
}

/** Return the value of a column at a row; without one, or where it has none there, the last before. */
function valueAt(data: uPlot.AlignedData, column: number, row: number | null): number | null {
  const values = data[column] ?? [];
  for (let index = Math.min(row ?? Infinity, values.length - 1); index >= 0; index--) {
    const value = values[index];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

function xAt(data: uPlot.AlignedData, row: number | null): number {
  return data[0][row ?? data[0].length - 1] ?? data[0].at(-1) ?? 0;
}

function spoken(title: string, along: string, series: Series[], format: Props["format"]): string {
  const parts = series.flatMap(({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    if (!first || !last) return [];
    return [`${name} from ${format(first[1])} to ${format(last[1])}`];
  });
  return `${title} by ${along}: ${parts.join(", ")}`;
}

interface Writers {
  x: (value: number) => string;
  y: (value: number) => string;
  at: (row: number | null) => void;
}

interface Shape {
  names: string[];
  width: number;
  fromZero: boolean;
  isBinary: boolean;
}

function optionsOf({ names, width, fromZero, isBinary }: Shape, writers: Writers): uPlot.Options {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const axis = {
    stroke: colour("muted"),
    grid: { stroke: colour("faint"), width: 1 },
    ticks: { show: false },
    font: `12px ${style.getPropertyValue("--sans")}`,
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 22, 0, 0],
    cursor: { y: false, drag: { x: true, y: false } },
    scales: {
      x: { time: false },
      y: fromZero ? { range: (_, __, most) => [0, most * 1.1 || 1] } : {},
    },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(writers.x), space: 70, size: 28 },
      {
        ...axis,
        values: (_, ticks) => ticks.map(writers.y),
        size: (_, labels) =>
          14 + LETTER * Math.max(1, ...(labels ?? []).map((each) => each.length)),
        space: 36,
        ...(isBinary ? { incrs: POWERS } : {}),
      },
    ],
    series: [
      {},
      ...names.map((label, index) => ({
        label,
        stroke: colour(COLOURS[index % COLOURS.length]!),
        width: 2,
        spanGaps: true,
        points: { size: 6 },
      })),
    ],
    hooks: { setCursor: [(made) => writers.at(made.cursor.idx ?? null)] },
  };
}
