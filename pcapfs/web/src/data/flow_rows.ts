// The flows of the list. A line of flows.jsonl has about 2 KB; of 100,000 flows the page keeps what
// the list shows, and asks for the rest when a flow is opened.

import type { Flow, FlowState } from "../api/types.ts";
import { endpoint, microseconds } from "../format.ts";
import { type FilterFields, numberField, numberTest } from "./filter.ts";
import type { Compare, OrderedRow } from "./ordered_rows.ts";

export interface FlowRow extends OrderedRow {
  readonly key: number;
  readonly ended: boolean;
  readonly state: FlowState;
  readonly protocol: string;
  /** `http`, `tls`, `dns`, or what carries it. */
  readonly application: string;
  readonly client: string;
  readonly server: string;
  /** Places of the ends in the order of addresses, see `endpointOrder`. */
  readonly clientOrder: number;
  readonly serverOrder: number;
  readonly clientPort: number;
  readonly serverPort: number;
  /** The subject of the flow: a name in TLS, or counts of transactions. */
  readonly about: string;
  readonly packets: number;
  readonly bytes: number;
  /** Microseconds since the Unix epoch. */
  readonly first: number;
  readonly durationUs: number;
  readonly retransmitted: number;
  readonly outOfOrder: number;
  readonly gaps: number;
  /** Lower-case text that a bare word of the filter is searched in. */
  readonly text: string;
}

function about(flow: Flow): string {
  if (flow.tls) return [flow.tls.sni, flow.tls.version, flow.tls.alpn].filter(Boolean).join(" · ");
  const lines = flow.http ?? flow.dns;
  if (!lines) return "";
  const total = lines.transactions + lines.open;
  const what = flow.http ? (total === 1 ? "request" : "requests") : total === 1 ? "query" : "queries";
  const incomplete = flow.http && flow.http.incomplete > 0 ? `, ${flow.http.incomplete} incomplete` : "";
  return `${total} ${what}${incomplete}`;
}

/** IPv4 addresses and their ports as a number, so that 10.0.0.9 comes before 10.0.0.10; others after them. */
export function endpointOrder(address: string, port: number): number {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address);
  if (!parts) return Number.MAX_SAFE_INTEGER;
  const [, a, b, c, d] = parts.map(Number) as [number, number, number, number, number];
  return (((a * 256 + b) * 256 + c) * 256 + d) * 65_536 + port;
}

export function flowRow(flow: Flow): FlowRow {
  const { client, server } = flow;
  const tls = about(flow);
  const application = flow.application ?? flow.protocol;
  const [from, to] = [endpoint(client.address, client.port), endpoint(server.address, server.port)];
  return {
    key: flow.flow,
    ended: flow.event === "ended",
    state: flow.state,
    protocol: flow.protocol,
    application,
    client: from,
    server: to,
    clientOrder: endpointOrder(client.address, client.port),
    serverOrder: endpointOrder(server.address, server.port),
    clientPort: client.port,
    serverPort: server.port,
    about: tls,
    packets: client.packets + server.packets,
    bytes: client.bytes + server.bytes,
    first: microseconds(flow.first) ?? 0,
    durationUs: flow.duration_us,
    retransmitted: client.retransmitted + server.retransmitted,
    outOfOrder: client.out_of_order + server.out_of_order,
    gaps: client.gaps.length + server.gaps.length,
    text: `${from} ${to} ${application} ${flow.protocol} ${flow.state} ${tls}`.toLowerCase(),
  };
}

/** Whether `next` is no older than `now`: answers of a list may come after events of the stream. */
export const isNewer = (next: FlowRow, now: FlowRow | undefined): boolean =>
  !now || (!now.ended && (next.ended || next.packets >= now.packets));

export const byNumber: Compare<FlowRow> = (a, b) => a.key - b.key;

const byText =
  (of: (row: FlowRow) => string): Compare<FlowRow> =>
  (a, b) => {
    const [one, other] = [of(a), of(b)];
    return one < other ? -1 : one > other ? 1 : 0;
  };

const byClient = byText((row) => row.client);
const byServer = byText((row) => row.server);

/** The orders of the list by the name of their column. */
export const FLOW_ORDERS: Readonly<Record<string, Compare<FlowRow>>> = {
  number: byNumber,
  state: byText((row) => row.state),
  application: byText((row) => row.application),
  client: (a, b) => a.clientOrder - b.clientOrder || byClient(a, b),
  server: (a, b) => a.serverOrder - b.serverOrder || byServer(a, b),
  about: byText((row) => row.about),
  packets: (a, b) => a.packets - b.packets,
  bytes: (a, b) => a.bytes - b.bytes,
  first: (a, b) => a.first - b.first,
  duration: (a, b) => a.durationUs - b.durationUs,
  trouble: (a, b) => a.gaps - b.gaps || a.retransmitted - b.retransmitted || a.outOfOrder - b.outOfOrder,
};

export const FLOW_FILTER: FilterFields<FlowRow> = {
  text: (row) => row.text,
  fields: {
    host: (value) => (row) => row.client.includes(value) || row.server.includes(value),
    client: (value) => (row) => row.client.includes(value),
    server: (value) => (row) => row.server.includes(value),
    port: (value) => {
      const test = numberTest(value);
      return (row) => test(row.clientPort) || test(row.serverPort);
    },
    state: (value) => (row) => row.state.startsWith(value),
    app: (value) => (row) => row.application.startsWith(value) || row.protocol === value,
    bytes: numberField((row) => row.bytes),
    packets: numberField((row) => row.packets),
    ms: numberField((row) => row.durationUs / 1000),
    flow: numberField((row) => row.key),
    has: (value) => (row) =>
      (value.startsWith("gap") && row.gaps > 0) ||
      (value.startsWith("retr") && row.retransmitted > 0) ||
      (value.startsWith("out") && row.outOfOrder > 0),
  },
};
