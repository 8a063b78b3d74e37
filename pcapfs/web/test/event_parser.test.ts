import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser } from "../src/api/event_parser.ts";

const TEXT =
  ': hello\n\nevent: flow\nid: 7\ndata: {"a":1}\n\ndata: x\r\ndata: y\r\nid: 8\r\n\r\nid: 9\n\nevent: z\ndata:w\r\r';
const EVENTS = [
  { type: "flow", data: '{"a":1}', id: "7" },
  { type: "message", data: "x\ny", id: "8" },
  { type: "z", data: "w", id: "9" },
];

test("pieces of any size give the same events", () => {
  for (let size = 1; size <= TEXT.length; size++) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < TEXT.length; at += size) events.push(...parser.push(TEXT.slice(at, at + size)));
    assert.deepEqual(events, EVENTS, `pieces of ${size}`);
  }
});

test("an event that is cut is not the last one", () => {
  const parser = new EventParser("5");
  assert.deepEqual(parser.push("id: 6\ndata: half"), []);
  assert.equal(parser.lastId, "5");
  parser.push("\n\n");
  assert.equal(parser.lastId, "6");
});

test("an event without an end is refused", () => {
  const parser = new EventParser();
  assert.throws(() => {
    for (let many = 0; many < 100; many++) parser.push("data: " + "x".repeat(100_000) + "\n");
  }, /too long/);
});
