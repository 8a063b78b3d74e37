import assert from "node:assert/strict";
import { test } from "node:test";
import type { Capture } from "../src/api/types.ts";
import { axisEnd, dropCauses, RateHistory, sampleAt } from "../src/data/history.ts";

function capture(packetsPerSecond: number, dropped: number, started = "2026-01-01T00:00:00Z"): Capture {
  const packets = { dropped_kernel: dropped, dropped_interface: 0, dropped_oversize: 0, lost_remote: 0 };
  const rate = { packets_per_second: packetsPerSecond, bits_per_second: packetsPerSecond * 8 };
  return { state: "running", status: { id: 1, started, packets, rate } } as unknown as Capture;
}

test("drops are those since the sample before, and of the same capture", () => {
  const history = new RateHistory();
  history.add(capture(10, 5), 0);
  history.add(capture(10, 5), 1000);
  history.add(capture(10, 12), 2000);
  history.add(capture(10, 3, "2026-01-02T00:00:00Z"), 3000);
  history.add(capture(10, 4, "2026-01-02T00:00:00Z"), 4000);
  assert.deepEqual(
    history.samples.map((sample) => sample.dropped),
    [0, 0, 7, 0, 1],
  );
});

test("a rate holds until the next sample, or until nothing more is known", () => {
  const history = new RateHistory();
  history.add(capture(10, 0), 1000);
  history.interrupt(2000);
  history.interrupt(2500);
  history.add(capture(20, 0), 3000);
  const at = (time: number): number | undefined => sampleAt(history.samples, time)?.packetsPerSecond;
  assert.deepEqual([500, 1000, 1999, 2000, 2999, 3000, 9000].map(at), [
    undefined,
    10,
    10,
    undefined,
    undefined,
    20,
    20,
  ]);
});

test("old samples leave", () => {
  const history = new RateHistory();
  for (let second = 0; second < 1000; second++) history.add(capture(second, 0), second * 1000);
  assert.ok(history.samples.length < 320 && history.samples.length >= 300);
  assert.equal(history.samples.at(-1)?.packetsPerSecond, 999);
});

test("causes of drops, and ends of axes", () => {
  assert.deepEqual(dropCauses(capture(0, 0)), []);
  assert.deepEqual(
    dropCauses(capture(0, 3)).map((cause) => [cause.what, cause.packets]),
    [["kernel", 3]],
  );
  assert.deepEqual([0, 1, 3, 10, 11, 51, 1234].map(axisEnd), [1, 1, 5, 10, 20, 100, 2000]);
  assert.equal(axisEnd(NaN), 1);
});
