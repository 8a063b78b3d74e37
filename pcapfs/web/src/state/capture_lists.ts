// The lists of one capture: its flows and its HTTP transactions.

import { captureUrl, listFlows, listTransactions } from "../api/request.ts";
import type { Flow, Transaction } from "../api/types.ts";
import { byNumber, FLOW_FILTER, FLOW_ORDERS, flowRow, isNewer, type FlowRow } from "../data/flow_rows.ts";
import {
  byBeginning,
  TRANSACTION_FILTER,
  TRANSACTION_ORDERS,
  transactionRow,
  type TransactionRow,
} from "../data/transaction_rows.ts";
import { LiveRows } from "./live_rows.ts";

/** Flows that the page keeps: about 100 MB of a browser's memory. */
const MAX_FLOWS = 200_000;
/** Transactions that the page keeps, with their lines: about 150 MB. */
const MAX_TRANSACTIONS = 50_000;
/** Lines of a page: more would keep the browser busy for longer than a frame or two. */
const PAGE_SIZE = 2000;

export interface CaptureLists {
  name: string;
  flows: LiveRows<Flow, FlowRow>;
  http: LiveRows<Transaction, TransactionRow>;
}

function flowRows(name: string): LiveRows<Flow, FlowRow> {
  return new LiveRows<Flow, FlowRow>({
    limit: MAX_FLOWS,
    natural: byNumber,
    orders: FLOW_ORDERS,
    filter: FLOW_FILTER,
    row(flow, _text, find) {
      const next = flowRow(flow);
      return isNewer(next, find(next.key)) ? next : null;
    },
    async page(after, signal) {
      const { flows, next, dropped } = await listFlows(name, after, PAGE_SIZE, signal);
      return { lines: flows, next, dropped };
    },
  });
}

function transactionRows(name: string): LiveRows<Transaction, TransactionRow> {
  return new LiveRows<Transaction, TransactionRow>({
    limit: MAX_TRANSACTIONS,
    natural: byBeginning,
    orders: TRANSACTION_ORDERS,
    filter: TRANSACTION_FILTER,
    row(transaction, text) {
      return transactionRow(transaction, text ?? JSON.stringify(transaction));
    },
    async page(after, signal) {
      const { http, next, dropped } = await listTransactions(name, after, PAGE_SIZE, signal);
      return { lines: http, next, dropped };
    },
  });
}

export function openLists(name: string): CaptureLists {
  return { name, flows: flowRows(name), http: transactionRows(name) };
}

export const captureEventsUrl = (name: string): string =>
  `${captureUrl(name)}/events?what=flows,http,counters`;
