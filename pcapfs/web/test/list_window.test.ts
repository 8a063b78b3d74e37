import assert from "node:assert/strict";
import { test } from "node:test";
import { isAtEnd, listWindow, rowOfSlot, scrollTo, slotsOf } from "../src/data/list_window.ts";

test("what is in view is drawn, and no more than a screen and its margins", () => {
  for (const rows of [0, 1, 10, 100_000]) {
    for (let top = 0; top <= Math.max(0, rows * 22 - 400); top += 997) {
      const { first, end } = listWindow(top, 400, 22, rows);
      assert.ok(first >= 0 && end <= rows && first <= end);
      assert.ok(first * 22 <= top, "the first row in view");
      assert.ok(end * 22 >= Math.min(top + 400, rows * 22), "the last row in view");
      assert.ok(end - first <= 400 / 22 + 14);
    }
  }
});

test("the elements draw each row of the window once, and a row keeps its element", () => {
  const slots = slotsOf(400, 22);
  let before = new Map<number, number>();
  for (let top = 0; top < 5000; top += 37) {
    const { first, end } = listWindow(top, 400, 22, 100_000);
    const rows = new Map(Array.from({ length: slots }, (_, slot) => [rowOfSlot(slot, slots, first), slot]));
    assert.equal(rows.size, slots);
    for (let row = first; row < end; row++) {
      assert.ok(rows.has(row), `row ${row} of ${first} to ${end}`);
      assert.equal(rows.get(row), before.get(row) ?? rows.get(row));
    }
    before = rows;
  }
});

test("a list that has become shorter than it is scrolled", () => {
  const { first, end } = listWindow(100_000, 400, 22, 5);
  assert.ok(first <= end && end <= 5);
});

test("the end, and rows that come into view", () => {
  assert.ok(isAtEnd(0, 400, 22, 5));
  assert.ok(isAtEnd(1800, 400, 22, 100));
  assert.ok(!isAtEnd(1700, 400, 22, 100));
  assert.equal(scrollTo(0, 50, 400, 22), 0);
  assert.equal(scrollTo(10, 50, 400, 22), 50);
  assert.equal(scrollTo(30, 0, 400, 22), 31 * 22 - 400);
});
