import assert from "node:assert/strict";
import { test } from "node:test";
import { bars, place, spanOf, ticks, union } from "../src/data/waterfall.ts";

const all = { requestFirst: 100, requestLast: 110, responseFirst: 150, responseLast: 200 };

test("three phases, one after the other", () => {
  assert.deepEqual(bars(all), [
    { phase: "send", span: { from: 100, to: 110 } },
    { phase: "wait", span: { from: 110, to: 150 } },
    { phase: "receive", span: { from: 150, to: 200 } },
  ]);
  assert.deepEqual(spanOf(all), { from: 100, to: 200 });
});

test("what was not seen has no bar", () => {
  assert.deepEqual(
    bars({ ...all, responseFirst: null, responseLast: null }).map((bar) => bar.phase),
    ["send"],
  );
  assert.deepEqual(
    bars({ ...all, requestFirst: null, requestLast: null }).map((bar) => bar.phase),
    ["receive"],
  );
  assert.deepEqual(
    bars({ requestFirst: null, requestLast: null, responseFirst: null, responseLast: null }),
    [],
  );
  assert.equal(
    spanOf({ requestFirst: null, requestLast: null, responseFirst: null, responseLast: null }),
    null,
  );
});

test("a response that begins before the request ends has no wait", () => {
  const phases = bars({ ...all, requestLast: 180 });
  assert.deepEqual(
    phases.map((bar) => bar.phase),
    ["send", "receive"],
  );
});

test("places stay on the axis", () => {
  const axis = { from: 100, to: 200 };
  assert.equal(place(150, axis), 0.5);
  assert.equal(place(0, axis), 0);
  assert.equal(place(1000, axis), 1);
  assert.equal(place(100, { from: 100, to: 100 }), 0);
  assert.deepEqual(union([null, axis, { from: 50, to: 120 }]), { from: 50, to: 200 });
  assert.equal(union([]), null);
});

test("ticks are round and few", () => {
  assert.deepEqual(ticks(1000, 5), [200, 400, 600, 800]);
  assert.deepEqual(ticks(0, 5), []);
  assert.deepEqual(ticks(NaN, 5), []);
  for (const width of [1, 7, 999, 123_456, 9e12]) assert.ok(ticks(width, 4).length <= 4);
});
