import assert from "node:assert/strict";
import { test } from "node:test";
import { numberField, numberTest, parseFilter, type FilterFields } from "../src/data/filter.ts";

interface Item {
  text: string;
  port: number;
}

const FIELDS: FilterFields<Item> = {
  text: (row) => row.text,
  fields: { port: numberField((row) => row.port), host: (value) => (row) => row.text.includes(value) },
};
const rows: readonly Item[] = [
  { text: "10.0.0.1 get /index.html", port: 80 },
  { text: "10.0.0.2 tls example.com", port: 443 },
  { text: "fe80::1 dns two words", port: 53 },
];
const found = (text: string): number[] =>
  rows.flatMap((row, at) => (parseFilter(text, FIELDS).accept(row) ? [at] : []));

test("all words must match, in any case", () => {
  assert.deepEqual(found(""), [0, 1, 2]);
  assert.deepEqual(found("  "), [0, 1, 2]);
  assert.deepEqual(found("GET"), [0]);
  assert.deepEqual(found("10.0.0 example"), [1]);
  assert.deepEqual(found("10.0.0 nothing"), []);
});

test("fields, excluded words and quotes", () => {
  assert.deepEqual(found("port:443"), [1]);
  assert.deepEqual(found("-port:443"), [0, 2]);
  assert.deepEqual(found("-10.0.0 port:<100"), [2]);
  assert.deepEqual(found('"two words"'), [2]);
  assert.deepEqual(found('-"two words"'), [0, 1]);
  assert.deepEqual(found('host:"two words"'), [2]);
});

test("half of a word, while one types", () => {
  assert.deepEqual(found("-"), [0, 1, 2]);
  assert.deepEqual(found('"two w'), [2]);
  // Nothing has a port that is no number.
  assert.deepEqual(found("port:"), []);
  assert.deepEqual(found("port:x"), []);
});

test("an unknown field is text, and is named", () => {
  assert.equal(parseFilter("prot:443", FIELDS).unknown, "prot");
  assert.equal(parseFilter("port:443 word", FIELDS).unknown, null);
  assert.deepEqual(found("fe80::1"), [2]);
  // The name of a property that every object has is no field.
  assert.equal(parseFilter("constructor:1", FIELDS).unknown, "constructor");
});

test("numbers", () => {
  for (const wanted of ["443", "=443", ">442", ">=443", "<444", "<=443", "400-500", "<1k", "0.4k-1k"]) {
    assert.ok(numberTest(wanted)(443), wanted);
  }
  for (const wanted of [
    "44",
    "4430",
    ">443",
    "<443",
    "500-600",
    ">1k",
    "",
    "x",
    "1-",
    "-",
    "..",
    ">400-500",
  ]) {
    assert.ok(!numberTest(wanted)(443), wanted);
  }
  assert.ok(!numberTest("<1")(null));
});
