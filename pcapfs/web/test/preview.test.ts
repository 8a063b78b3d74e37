import assert from "node:assert/strict";
import { test } from "node:test";
import { preview, prettyJson } from "../src/data/preview.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

test("JSON is laid out, and its numbers and names stay as they were sent", () => {
  assert.equal(
    prettyJson('{"b":12345678901234567890,"1":1.0,"a":[],"a":{ },"s":"x,{\\"y"}'),
    '{\n  "b": 12345678901234567890,\n  "1": 1.0,\n  "a": [],\n  "a": {},\n  "s": "x,{\\"y"\n}',
  );
  assert.equal(prettyJson("[1,\n2]"), "[\n  1,\n  2\n]");
  assert.equal(prettyJson("{no json}"), null);
  assert.equal(prettyJson("7"), "7");
});

test("JSON that is laid out is the same JSON", () => {
  const value = { a: [1, [], {}, { b: null }], 'c "d': "e\\", f: { g: true } };
  assert.deepEqual(JSON.parse(prettyJson(JSON.stringify(value))!), value);
});

test("deep nesting and long strings end", () => {
  assert.ok(prettyJson("[".repeat(2000) + "]".repeat(2000)));
  assert.ok(prettyJson(JSON.stringify('x\\"'.repeat(200_000))));
});

test("text, bytes, nothing", () => {
  assert.deepEqual(preview(encode(""), "text/plain"), { kind: "empty" });
  assert.deepEqual(preview(encode("<script>alert(1)</script>"), "text/html"), {
    kind: "text",
    text: "<script>alert(1)</script>",
    note: null,
  });
  const binary = preview(new Uint8Array([0, 1, 65, 255]), "application/octet-stream");
  assert.ok(binary.kind === "bytes" && binary.text.startsWith("00000000  00 01 41 ff"));
  // A character that is cut at the end of what was read is no reason to show bytes.
  assert.equal(preview(encode("grün").slice(0, 3), "text/plain").kind, "text");
});

test("what is shown is bounded, and says so", () => {
  const long = preview(encode("x".repeat(500_000)), "text/plain");
  assert.ok(long.kind === "text" && long.text.length === 200_000 && long.note?.includes("500,000"));
  const binary = preview(new Uint8Array(10_000), "");
  assert.ok(binary.kind === "bytes" && binary.note?.includes("10,000"));
});
