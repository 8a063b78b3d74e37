import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bytes,
  dateAndClock,
  duration,
  endpoint,
  microseconds,
  packetRate,
  plural,
  rate,
} from "../src/format.ts";

test("times", () => {
  assert.equal(microseconds("1970-01-01T00:00:01.000001999Z"), 1_000_001);
  assert.equal(microseconds("2026-01-31T23:59:59Z"), 1_769_903_999_000_000);
  for (const none of [
    null,
    undefined,
    "",
    "yesterday",
    "2026-13-01T00:00:00Z",
    "2026-01-01T00:00:00+01:00",
  ]) {
    assert.equal(microseconds(none), null);
  }
});

test("numbers have three digits and a unit", () => {
  assert.deepEqual([0, 999, 1023, 1024, 1536, 102_400, 1 << 30].map(bytes), [
    "0 B",
    "999 B",
    "1023 B",
    "1.00 KiB",
    "1.50 KiB",
    "100 KiB",
    "1.00 GiB",
  ]);
  assert.deepEqual(
    [0, 999, 1000, 12_345, 999_999, 1e9].map((value) => rate(value, "b/s")),
    ["0 b/s", "999 b/s", "1.00 kb/s", "12.3 kb/s", "1.00 Mb/s", "1.00 Gb/s"],
  );
  assert.deepEqual([7, 1430].map(packetRate), ["7 packets/s", "1.43 k packets/s"]);
  assert.equal(plural(1, "packet"), "1 packet");
  assert.equal(plural(1234, "query", "queries"), "1,234 queries");
});

test("a date has microseconds", () => {
  assert.match(dateAndClock(1_769_903_999_000_012), /^20\d\d-\d\d-\d\d \d\d:\d\d:59\.000012$/);
  assert.equal(dateAndClock(null), "–");
  assert.equal(dateAndClock(9e15 * 1000), "–");
});

test("spans of time", () => {
  assert.deepEqual([0, 999, 1000, 99_950, 999_400, 999_500, 61e6, 3600e6, 200_000e6].map(duration), [
    "0 µs",
    "999 µs",
    "1.00 ms",
    "100 ms",
    "999 ms",
    "1.00 s",
    "1 min 1 s",
    "1 h 0 min",
    "2 d 7 h",
  ]);
  assert.equal(duration(null), "–");
  assert.equal(duration(59_999_999), "60.0 s");
});

test("endpoints", () => {
  assert.equal(endpoint("10.0.0.1", 80), "10.0.0.1:80");
  assert.equal(endpoint("::1", 80), "[::1]:80");
});
