import assert from "node:assert/strict";
import { test } from "node:test";
import type { Flow, Transaction } from "../src/api/types.ts";
import { parseFilter } from "../src/data/filter.ts";
import { endpointOrder, FLOW_FILTER, FLOW_ORDERS, flowRow, isNewer } from "../src/data/flow_rows.ts";
import {
  MAX_INDEX,
  mediaType,
  TRANSACTION_FILTER,
  transactionKey,
  transactionRow,
} from "../src/data/transaction_rows.ts";
import { savefileUrl } from "../src/data/savefile.ts";

const side = (address: string, port: number) => ({
  address,
  port,
  packets: 3,
  bytes: 300,
  stream_bytes: 100,
  retransmitted: 0,
  out_of_order: 0,
  overlapping: 0,
  gaps: [] as Flow["client"]["gaps"],
});
const flow: Flow = {
  flow: 7,
  event: "opened",
  name: "x",
  protocol: "tcp",
  application: "tls",
  state: "open",
  closed_by: null,
  client: side("10.0.0.1", 40000),
  server: { ...side("2001:db8::1", 443), retransmitted: 2, gaps: [[0, 5, "missing"]] },
  vlan: [],
  tunnel: null,
  first: "2026-01-01T00:00:00.000001000Z",
  last: "2026-01-01T00:00:01.000000000Z",
  duration_us: 999_999,
  handshake_us: null,
  tls: { sni: "Example.com", alpn: "h2", version: "TLS 1.3" },
  http: null,
  dns: null,
};

test("a flow's row, and filters on it", () => {
  const row = flowRow(flow);
  assert.equal(row.server, "[2001:db8::1]:443");
  assert.equal(row.about, "Example.com · TLS 1.3 · h2");
  assert.deepEqual([row.packets, row.bytes, row.gaps, row.retransmitted], [6, 600, 1, 2]);
  const accepts = (text: string): boolean => parseFilter(text, FLOW_FILTER).accept(row);
  for (const text of [
    "example.com",
    "port:443",
    "port:40000",
    "app:tls",
    "app:tcp",
    "state:open",
    "has:gap",
    "has:retr",
    "ms:>900",
    "host:2001:db8",
    "flow:7",
  ]) {
    assert.ok(accepts(text), text);
  }
  for (const text of ["port:80", "app:http", "has:out", "client:2001", "-tls"])
    assert.ok(!accepts(text), text);
});

test("addresses are in the order of their numbers", () => {
  const ends: [string, number][] = [
    ["10.0.0.9", 80],
    ["10.0.0.10", 22],
    ["10.0.0.10", 80],
    ["255.255.255.255", 65535],
    ["::1", 1],
    ["fe80::1", 1],
  ];
  const rows = ends.map(([address, port]) => flowRow({ ...flow, client: side(address, port) }));
  assert.deepEqual([...rows].reverse().sort(FLOW_ORDERS["client"]), rows);
  assert.ok(endpointOrder("255.255.255.255", 65535) < Number.MAX_SAFE_INTEGER);
});

test("an older state of a flow does not replace a newer one", () => {
  const now = flowRow(flow);
  const ended = flowRow({ ...flow, event: "ended" });
  assert.ok(isNewer(now, undefined));
  assert.ok(isNewer(ended, now));
  assert.ok(!isNewer(now, ended));
  assert.ok(!isNewer(flowRow({ ...flow, client: { ...flow.client, packets: 1 } }), now));
});

test("a transaction's row, and filters on it", () => {
  const body = { wire_bytes: 9, bytes: null, encoding: null, framing: "length", file: null } as const;
  const line: Transaction = {
    flow: 3,
    index: 2,
    client: { address: "10.0.0.1", port: 5 },
    server: { address: "10.0.0.2", port: 8080 },
    duration_us: 1500,
    method: "POST",
    target: "/Login",
    host: null,
    version: "HTTP/1.1",
    status: 404,
    reason: null,
    request_headers: [["Cookie", "a=1"]],
    response_headers: [["content-TYPE", "Text/HTML; charset=utf-8"]],
    request_body: body,
    response_body: body,
    times: {
      request_first: "2026-01-01T00:00:00Z",
      request_last: null,
      response_first: null,
      response_last: null,
    },
    state: "truncated",
    why: null,
  };
  const row = transactionRow(line, JSON.stringify(line));
  assert.equal(row.host, "10.0.0.2:8080");
  assert.equal(row.type, "text/html");
  assert.equal(row.why, "truncated");
  const accepts = (text: string): boolean => parseFilter(text, TRANSACTION_FILTER).accept(row);
  for (const text of [
    "status:404",
    "status:4xx",
    "method:post",
    "type:html",
    "/login",
    "header:cookie",
    "is:incomplete",
    "ms:>1",
    "bytes:9",
  ]) {
    assert.ok(accepts(text), text);
  }
  for (const text of ["status:5xx", "method:pos", "is:complete", "header:nothing"])
    assert.ok(!accepts(text), text);
  assert.equal(mediaType([]), "");
  assert.notEqual(transactionKey(1, 2), transactionKey(2, 1));
  assert.throws(() => transactionKey(1, MAX_INDEX), RangeError);
});

test("where savefiles are", () => {
  assert.equal(
    savefileUrl("a b", { from: "live", format: "pcap", filter: " tcp port 80 ", seconds: "30", packets: "" }),
    "/captures/a%20b/live.pcap?filter=tcp+port+80&duration=30s",
  );
  assert.equal(
    savefileUrl("web", { from: "replay", format: "pcapng", filter: "", seconds: "x", packets: "" }),
    "/captures/web/replay.pcapng",
  );
});
