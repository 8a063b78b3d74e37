import assert from "node:assert/strict";
import { test } from "node:test";
import { flagNames, nearest, pan, timelinePacket, wholeSpan, zoom } from "../src/data/timeline.ts";

const packet = (us: number, payload = 0) =>
  timelinePacket({
    number: us,
    time: `1970-01-01T00:00:00.${String(us).padStart(6, "0")}000Z`,
    direction: "client",
    length: 60,
    payload,
    sequence: 0,
    flags: "SA",
    note: null,
  });

test("heights grow with the payload and stay within 1", () => {
  const heights = [0, 1, 1460, 65_535, 10_000_000].map((payload) => packet(0, payload).height);
  assert.equal(heights[0], 0);
  assert.deepEqual(
    [...heights].sort((a, b) => a - b),
    heights,
  );
  assert.equal(heights.at(-1), 1);
});

test("zooming keeps the centre and stays within the whole", () => {
  const whole = wholeSpan([packet(1000), packet(2000)]);
  assert.ok(whole.from < 1000 && whole.to > 2000);
  const near = zoom(whole, whole, 1500, 0.5);
  assert.ok(Math.abs((near.from + near.to) / 2 - 1500) < 1e-6);
  assert.deepEqual(zoom(near, whole, 1100, 100), whole);
  const moved = pan(near, whole, -10);
  assert.equal(moved.from, whole.from);
  assert.ok(Math.abs(moved.to - moved.from - (near.to - near.from)) < 1e-6);
  let view = whole;
  for (let many = 0; many < 100; many++) view = zoom(view, whole, 1000, 0.5);
  assert.ok(view.to - view.from >= 9);
});

test("the nearest packet", () => {
  const packets = [packet(10), packet(20), packet(40)];
  assert.deepEqual(
    [0, 14, 16, 29, 31, 99].map((at) => nearest(packets, at)),
    [0, 0, 1, 1, 2, 2],
  );
  assert.equal(nearest([], 1), -1);
  assert.ok(wholeSpan([]).from < wholeSpan([]).to);
});

test("flags have names", () => {
  assert.equal(flagNames("SA"), "SYN ACK");
  assert.equal(flagNames(null), "");
  assert.equal(flagNames("?"), "?");
});
