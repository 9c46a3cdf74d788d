import { expect, test } from "vitest";

import {
  ago,
  bytes,
  count,
  duration,
  figureName,
  probability,
  score,
  sentence,
  signed,
} from "./format";

const NOW = Date.parse("2026-11-29T12:00:00Z");
const before = (seconds: number) => new Date(NOW - 1000 * seconds).toISOString();

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "0.977 KiB"],
  [1024, "1 KiB"],
  [1.5 * 2 ** 30, "1.5 GiB"],
  [1023.9 * 2 ** 20, "1 GiB"],
  [2 ** 60, "1,050,000 TiB"],
])("bytes writes %d as %s", (value, words) => expect(bytes(value)).toBe(words));

test.each([
  [-3, "0 s"],
  [59.4, "59 s"],
  [59.6, "1 min"],
  [61, "1 min 1 s"],
  [3599.9, "1 h"],
  [3660, "1 h 1 min"],
  [86_399, "24 h"],
  [90_000, "1 d 1 h"],
])("duration writes %d as %s", (seconds, words) => expect(duration(seconds)).toBe(words));

test("ago names the nearest unit, and a date after a week", () => {
  expect(ago(before(2), NOW)).toBe("now");
  expect(ago(before(40), NOW)).toBe("40 seconds ago");
  expect(ago(before(3600), NOW)).toBe("1 hour ago");
  expect(ago(before(86_400), NOW)).toBe("yesterday");
  expect(ago(before(8 * 86_400), NOW)).toContain("Nov 21, 2026");
});

test("score has four digits, and less beyond 1", () => {
  expect(score(0.5)).toBe("0.5000");
  expect(score(16.5597)).toBe("16.6");
  expect(signed(0.014)).toBe("+0.0140");
  expect(signed(-1.19)).toBe("-1.2");
});

test("probability never says that something is certain", () => {
  expect(probability(0.4)).toBe("0.40");
  expect(probability(0.9999)).toBe("> 0.99");
});

test("count agrees with its noun", () => {
  expect(count(1, "run")).toBe("1 run");
  expect(count(1200, "run")).toBe("1,200 runs");
});

test("sentence leaves names alone", () => {
  expect(sentence("no such run: A-1")).toBe("No such run: A-1");
  expect(sentence("models:/cit/1 is no better")).toBe("models:/cit/1 is no better");
  expect(sentence("recall@20")).toBe("Recall@20");
  expect(sentence("preprocess: too large")).toBe("Preprocess: too large");
  expect(sentence("x.bin is no dataset")).toBe("x.bin is no dataset");
  expect(sentence("model.lr is at most 1")).toBe("model.lr is at most 1");
  expect(sentence("")).toBe("");
});

test("figureName writes the field's words", () => {
  expect(figureName("validation hard_mrr")).toBe("validation hard MRR");
});
