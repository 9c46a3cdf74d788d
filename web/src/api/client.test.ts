import { expect, test } from "vitest";

import { address, problemOf } from "./client";

test("address leaves out words without a value and escapes the others", () => {
  expect(address("/runs", { state: "", limit: 5, after: undefined })).toBe("/api/v1/runs?limit=5");
  expect(address("/uploads", { name: "a b&c" })).toBe("/api/v1/uploads?name=a+b%26c");
});

test("problemOf reads detail, hint and field", () => {
  const text = JSON.stringify({ title: "Wrong", detail: "too large", hint: "less", field: "name" });
  const { message, status, hint, field } = problemOf(422, text);
  expect([message, status, hint, field]).toEqual(["too large", 422, "less", "name"]);
});

test("problemOf makes do with what a proxy answers", () => {
  const { message, hint } = problemOf(503, "<html>Bad gateway</html>", "7");
  expect(message).toBe("the server answered with status 503");
  expect(hint).toBe("Try again in 7 seconds.");
});
