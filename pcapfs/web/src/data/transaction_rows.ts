// The HTTP transactions of the list. A row keeps what the list shows, and the line itself as text,
// which takes a third of the memory of its objects.

import type { HeaderPair, Transaction } from "../api/types.ts";
import { endpoint, microseconds } from "../format.ts";
import { type FilterFields, numberField, numberTest } from "./filter.ts";
import type { Compare, OrderedRow } from "./ordered_rows.ts";
import type { Phases } from "./waterfall.ts";

export interface TransactionRow extends OrderedRow {
  /** Flow and index as one number, see `transactionKey`. */
  readonly key: number;
  readonly index: number;
  readonly flow: number;
  readonly method: string;
  readonly status: number | null;
  readonly host: string;
  readonly target: string;
  readonly type: string;
  readonly client: string;
  /** Bytes of the response's body, decoded where that is known. */
  readonly bytes: number;
  readonly durationUs: number | null;
  readonly complete: boolean;
  readonly why: string | null;
  readonly phases: Phases;
  /** Lower-case text that a bare word of the filter is searched in. */
  readonly text: string;
  /** The line of http.jsonl. */
  readonly line: string;
}

/** The value of the first header of a name, which is in lower case; `null` without one. */
export function header(headers: readonly HeaderPair[], name: string): string | null {
  return headers.find(([one]) => one.toLowerCase() === name)?.[1] ?? null;
}

/** `application/json` of a Content-Type; empty if there is none. */
export const mediaType = (headers: readonly HeaderPair[]): string =>
  (header(headers, "content-type") ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";

/** Transactions of one flow that have a key: both numbers fit into the 53 bits of a number then. */
export const MAX_INDEX = 2 ** 21;

/** The identity of a transaction in its capture; an error if there is no number for it. */
export function transactionKey(flow: number, index: number): number {
  const key = flow * MAX_INDEX + index;
  if (!(index < MAX_INDEX && Number.isSafeInteger(key))) throw new RangeError(`transaction ${flow}/${index}`);
  return key;
}

export function transactionRow(transaction: Transaction, line: string): TransactionRow {
  const { times, server } = transaction;
  const host = transaction.host ?? endpoint(server.address, server.port);
  const target = transaction.target ?? "";
  const method = transaction.method ?? "?";
  const type = mediaType(transaction.response_headers);
  return {
    key: transactionKey(transaction.flow, transaction.index),
    index: transaction.index,
    flow: transaction.flow,
    method,
    status: transaction.status,
    host,
    target,
    type,
    client: endpoint(transaction.client.address, transaction.client.port),
    bytes: transaction.response_body.bytes ?? transaction.response_body.wire_bytes,
    durationUs: transaction.duration_us,
    complete: transaction.state === "complete",
    why: transaction.why ?? (transaction.state === "complete" ? null : transaction.state),
    phases: {
      requestFirst: microseconds(times.request_first),
      requestLast: microseconds(times.request_last),
      responseFirst: microseconds(times.response_first),
      responseLast: microseconds(times.response_last),
    },
    text: `${method} ${transaction.status ?? ""} ${host}${target} ${type}`.toLowerCase(),
    line,
  };
}

const byText =
  (of: (row: TransactionRow) => string): Compare<TransactionRow> =>
  (a, b) => {
    const [one, other] = [of(a), of(b)];
    return one < other ? -1 : one > other ? 1 : 0;
  };

/** When it began; of one whose request was not seen, when the response did. */
export const began = (row: TransactionRow): number =>
  row.phases.requestFirst ?? row.phases.responseFirst ?? 0;

/** In the order in which they began. */
export const byBeginning: Compare<TransactionRow> = (a, b) => began(a) - began(b) || a.key - b.key;

/** The orders of the list by the name of their column. */
export const TRANSACTION_ORDERS: Readonly<Record<string, Compare<TransactionRow>>> = {
  time: byBeginning,
  status: (a, b) => (a.status ?? 0) - (b.status ?? 0),
  method: byText((row) => row.method),
  url: byText((row) => row.host + row.target),
  type: byText((row) => row.type),
  bytes: (a, b) => a.bytes - b.bytes,
  duration: (a, b) => (a.durationUs ?? -1) - (b.durationUs ?? -1),
  flow: (a, b) => a.flow - b.flow,
};

/** `404` or `4xx`. */
function statusTest(wanted: string): (status: number | null) => boolean {
  if (!/^\dxx$/.test(wanted)) return numberTest(wanted);
  return (status) => status !== null && Math.floor(status / 100) === Number(wanted[0]);
}

export const TRANSACTION_FILTER: FilterFields<TransactionRow> = {
  text: (row) => row.text,
  fields: {
    status: (value) => {
      const test = statusTest(value);
      return (row) => test(row.status);
    },
    method: (value) => (row) => row.method.toLowerCase() === value,
    host: (value) => (row) => row.host.toLowerCase().includes(value),
    type: (value) => (row) => row.type.includes(value),
    client: (value) => (row) => row.client.includes(value),
    flow: numberField((row) => row.flow),
    bytes: numberField((row) => row.bytes),
    ms: numberField((row) => (row.durationUs === null ? null : row.durationUs / 1000)),
    header: (value) => (row) => row.line.toLowerCase().includes(value),
    is: (value) => (row) => (value === "incomplete" ? !row.complete : value === "complete" && row.complete),
  },
};
