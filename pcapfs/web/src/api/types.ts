// The answers of the HTTP interface, as far as the page uses them. The schemas in docs/schema
// describe their lines.

/** A time as `2026-01-31T23:59:59.000000000Z`. */
export type Timestamp = string;

export type CaptureState = "pending" | "running" | "retrying" | "stopped" | "ended" | "failed";

export interface PacketCounters {
  seen: number;
  stored: number;
  excluded: number;
  dropped_kernel: number;
  dropped_interface: number;
  dropped_oversize: number;
  lost_remote: number;
  retained: number;
  overwritten: number;
}

export interface FlowCounters {
  open: number;
  closed: number;
  evicted: number;
  engine_lag_packets: number;
  engine_lost_packets: number;
  undecodable: number;
  gaps: number;
  dropped: number;
  log_lines_dropped: number;
  memory_bytes: number;
}

/** The object of `status.json`. */
export interface CaptureStatus {
  id: number;
  interface: string | null;
  linktype: string | null;
  snaplen: number;
  started: Timestamp;
  owner: string;
  group: string;
  mode: string;
  packets: PacketCounters;
  bytes: { stored: number; retained: number };
  rate: { packets_per_second: number; bits_per_second: number };
  ring: {
    size_bytes: number;
    segments: number;
    used: number;
    oldest: Timestamp | null;
    newest: Timestamp | null;
    next_number: number;
  };
  readers: { open: number; delivered_packets: number; lost_packets: number };
  flows: FlowCounters;
}

export interface Capture {
  name: string;
  aliases: string[];
  source: string;
  filter: string | null;
  state: CaptureState;
  error: string | null;
  may_control: boolean;
  status: CaptureStatus;
}

/** A line of `readers.jsonl`: one opener of a savefile of the capture. */
export interface Reader {
  file: string;
  pid: number;
  uid: number;
  comm: string;
  opened: Timestamp;
  delivered_packets: number;
  delivered_bytes: number;
  lost_packets: number;
  lag_packets: number;
  blocked: boolean;
}

export type FlowState =
  "opening" | "open" | "closing" | "closed" | "reset" | "timed_out" | "evicted" | "midstream";

export interface FlowSide {
  address: string;
  port: number;
  packets: number;
  bytes: number;
  stream_bytes: number;
  retransmitted: number;
  out_of_order: number;
  overlapping: number;
  gaps: [number, number, "missing" | "expired"][];
}

/** A line of `flows.jsonl`: the newest state of a flow. */
export interface Flow {
  flow: number;
  event: "opened" | "ended";
  name: string;
  protocol: "tcp" | "udp";
  application: "http" | "tls" | "dns" | null;
  state: FlowState;
  closed_by: "client" | "server" | null;
  client: FlowSide;
  server: FlowSide;
  vlan: number[];
  tunnel: { kind: string; id: number | null; source: string | null; destination: string | null } | null;
  first: Timestamp;
  last: Timestamp;
  duration_us: number;
  handshake_us: number | null;
  tls: { sni: string | null; alpn: string | null; version: string | null } | null;
  http: { transactions: number; incomplete: number; open: number } | null;
  dns: { transactions: number; open: number } | null;
}

/** A flow with the list of its files. */
export interface FlowWithFiles extends Flow {
  files: { name: string; size: number | null }[];
}

/** A packet of a flow, for its timeline. */
export interface FlowPacket {
  number: number;
  time: Timestamp;
  direction: "client" | "server";
  length: number;
  payload: number;
  sequence: number | null;
  flags: string | null;
  note: "retransmission" | "out_of_order" | "gap_before" | null;
}

export type HeaderPair = [name: string, value: string];

export interface MessageBody {
  wire_bytes: number;
  bytes: number | null;
  encoding: string | null;
  framing: "none" | "length" | "chunked" | "close";
  file: string | null;
}

/** A line of `http.jsonl`: one request with its response. */
export interface Transaction {
  flow: number;
  index: number;
  client: { address: string; port: number };
  server: { address: string; port: number };
  duration_us: number | null;
  method: string | null;
  target: string | null;
  host: string | null;
  version: string | null;
  status: number | null;
  reason: string | null;
  request_headers: HeaderPair[];
  response_headers: HeaderPair[];
  request_body: MessageBody;
  response_body: MessageBody;
  times: {
    request_first: Timestamp | null;
    request_last: Timestamp | null;
    response_first: Timestamp | null;
    response_last: Timestamp | null;
  };
  state: "complete" | "truncated" | "aborted" | "gap" | "malformed";
  why: string | null;
}

/** One answer of a list that comes in pages. */
export interface FlowsPage {
  flows: Flow[];
  next: string | number | null;
  dropped: number;
}
export interface TransactionsPage {
  http: Transaction[];
  next: string | number | null;
  dropped: number;
}
/** `why`: why packets of the flow are missing in the list, for people; null if none are. */
export interface PacketsPage {
  packets: FlowPacket[];
  next: string | number | null;
  why?: string | null;
}
