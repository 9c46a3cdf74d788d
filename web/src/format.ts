/** Numbers, sizes and times in the words and digits of the reader's language. */

const WHOLE = new Intl.NumberFormat();
const SHORT = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const PERCENT = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 0 });
const SCORE = new Intl.NumberFormat(undefined, {
  minimumFractionDigits: 4,
  maximumFractionDigits: 4,
});
const CHANCE = new Intl.NumberFormat(undefined, {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const FIGURE = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const SIGNED = new Intl.NumberFormat(undefined, {
  signDisplay: "exceptZero",
  minimumFractionDigits: 4,
  maximumFractionDigits: 4,
});
const SIGNED_FIGURE = new Intl.NumberFormat(undefined, {
  signDisplay: "exceptZero",
  maximumFractionDigits: 1,
});
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const whole = (value: number) => WHOLE.format(value);
export const short = (value: number) => SHORT.format(value);
export const percent = (share: number) => PERCENT.format(share);
/** Write a score between 0 and 1 with the four digits of leaderboards, a larger figure with less. */
export const score = (value: number) =>
  Math.abs(value) <= 1 ? SCORE.format(value) : FIGURE.format(value);

/** Write a difference of scores with its sign, with the digits of `score`. */
export const signed = (value: number) =>
  Math.abs(value) <= 1 ? SIGNED.format(value) : SIGNED_FIGURE.format(value);

/** Write a probability; that of what is nearly certain is not rounded to 1. */
export const probability = (value: number) =>
  value > 0.995 ? `> ${CHANCE.format(0.99)}` : CHANCE.format(value);

/** Write a number of bytes with a unit of 1024s, as `1.5 GiB`. */
export function bytes(value: number): string {
  let power = 0;
  // 1,023.6 would be written as 1,020 by three digits: the next unit says it better.
  while (Math.abs(value) >= 999.5 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${SHORT.format(value)} ${UNITS[power]}`;
}

/** Write a duration in its two largest units, as `1 h 5 min`. */
export function duration(seconds: number): string {
  const full = Math.max(0, Math.round(seconds));
  if (full < MINUTE) return `${full} s`;
  if (full < HOUR) return two(Math.floor(full / MINUTE), "min", full % MINUTE, "s");
  const minutes = Math.round(full / MINUTE);
  if (full < DAY) return two(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.round(full / HOUR);
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function two(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return `${large} ${largeUnit}` + (small ? ` ${small} ${smallUnit}` : "");
}

export const date = (iso: string) => DATE.format(new Date(iso));
export const fullDate = (iso: string) => FULL.format(new Date(iso));

/** Write how long ago something was, as `5 minutes ago`; a date, once it is over a week. */
export function ago(iso: string, now = Date.now()): string {
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < 10) return AGO.format(0, "second");
  if (seconds < MINUTE) return AGO.format(-Math.round(seconds), "second");
  if (seconds < HOUR) return AGO.format(-Math.round(seconds / MINUTE), "minute");
  if (seconds < DAY) return AGO.format(-Math.round(seconds / HOUR), "hour");
  if (seconds < 7 * DAY) return AGO.format(-Math.round(seconds / DAY), "day");
  return date(iso);
}

/** Write a count with its noun, as `1 run` or `3 runs`. */
export function count(value: number, noun: string, plural = `${noun}s`): string {
  return `${WHOLE.format(value)} ${value === 1 ? noun : plural}`;
}

/** Begin a sentence of the server, which writes them in lower case, unless with a name or number. */
export function sentence(text: string): string {
  return text.replace(
    /^[a-z]+(?=[:;,]?\s|@|$)/,
    (word) => word.charAt(0).toUpperCase() + word.slice(1),
  );
}

/** Write the name of a figure as people do: `test_mrr` as `test MRR`. */
export function figureName(name: string): string {
  return name.replaceAll("_", " ").replace(/\b(mrr|auc)\b/g, (word) => word.toUpperCase());
}

const SCORES: [string, string][] = [
  ["mrr", "1 is the best: what was left out always comes first"],
  ["accuracy", "share that it tells right"],
];

/** Say what a score means; nothing of one that is not known here. */
export function scoreHelp(name: string): string {
  return SCORES.find(([end]) => name.toLowerCase().endsWith(end))?.[1] ?? "";
}
