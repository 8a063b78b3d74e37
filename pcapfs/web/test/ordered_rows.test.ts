import assert from "node:assert/strict";
import { test } from "node:test";
import { OrderedRows, type OrderedRow } from "../src/data/ordered_rows.ts";

interface Item extends OrderedRow {
  readonly key: number;
  readonly value: number;
}

/** Numbers that look random and are the same in each run. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("it agrees with a sort and a filter of everything, after any changes", () => {
  const next = random(7);
  const natural = (a: Item, b: Item): number => a.key - b.key;
  const orders = [
    natural,
    (a: Item, b: Item): number => a.value - b.value,
    (a: Item, b: Item): number => b.value - a.value,
  ];
  const filters = [() => true, (row: Item) => row.value % 2 === 0, (row: Item) => row.value > 5];
  const rows = new OrderedRows<Item>(60, natural);
  const model = new Map<number, Item>();
  let [order, filter] = [orders[0]!, filters[0]!];
  for (let round = 0; round < 2000; round++) {
    const choice = next();
    if (choice < 0.1) rows.sortBy((order = orders[Math.floor(next() * 3)]!));
    else if (choice < 0.2) rows.filterBy((filter = filters[Math.floor(next() * 3)]!));
    else {
      const batch = Array.from({ length: Math.floor(next() * 8) }, () => ({
        key: Math.floor(next() * 50) + Math.floor(round / 100),
        value: Math.floor(next() * 10),
      }));
      rows.put(batch);
      for (const row of batch) model.set(row.key, row);
      for (const key of model.keys()) if (!rows.find(key)) model.delete(key);
    }
    const expected = [...model.values()].sort((a, b) => order(a, b) || natural(a, b));
    assert.deepEqual(
      rows.all().map((row) => row.key),
      expected.map((row) => row.key),
    );
    assert.deepEqual(
      rows.shown.map((row) => row.key),
      expected.filter(filter).map((row) => row.key),
    );
    assert.ok(rows.size <= 60);
  }
});

test("the oldest leave when there are too many, and are counted", () => {
  const rows = new OrderedRows<Item>(100, (a, b) => a.key - b.key);
  rows.put(Array.from({ length: 100 }, (_, key) => ({ key, value: 0 })));
  assert.equal(rows.dropped, 0);
  rows.put([{ key: 100, value: 0 }]);
  assert.equal(rows.size + rows.dropped, 101);
  assert.equal(rows.all()[0]?.key, rows.dropped);
  assert.equal(rows.all().at(-1)?.key, 100);
});

test("a row that is put again stays once", () => {
  const rows = new OrderedRows<Item>(10, (a, b) => a.key - b.key);
  const row = { key: 1, value: 1 };
  rows.put([row]);
  rows.put([row, row]);
  assert.deepEqual(rows.all(), [row]);
});
