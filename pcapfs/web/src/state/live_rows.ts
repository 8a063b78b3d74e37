// A list of lines of a capture that grows while it is shown. Lines that are there already come in
// pages, new ones come as events. Both are put into the list together, a few times a second.

import { createSignal } from "solid-js";
import { RequestError } from "../api/request.ts";
import { type FilterFields, parseFilter } from "../data/filter.ts";
import { type Compare, OrderedRows, type OrderedRow } from "../data/ordered_rows.ts";

/** The differences between the list of flows and that of transactions. */
export interface RowSource<Line, Row extends OrderedRow> {
  /** Rows that are kept at most. */
  limit: number;
  natural: Compare<Row>;
  orders: Readonly<Record<string, Compare<Row>>>;
  filter: FilterFields<Row>;
  /**
   * Makes a row of a line; `null` if the list has it as new already. `text` is the line of an event,
   * `find` finds the row that the list has for a key.
   */
  row(line: Line, text: string | null, find: (key: number) => Row | undefined): Row | null;
  page(after: string | number | null, signal: AbortSignal): Promise<RowsPage<Line>>;
}

export interface RowsPage<Line> {
  lines: Line[];
  next: string | number | null;
  dropped: number;
}

export interface SortOrder {
  column: string;
  descending: boolean;
}

/** Milliseconds between two changes of the list. */
const FLUSH_INTERVAL = 120;

/** Attempts for a page of lines, and milliseconds between the first two. */
const ATTEMPTS = 5;
const RETRY_WAIT = 400;
/** Statuses after which another attempt may do: no answer, too many requests, not available now. */
const PASSING: ReadonlySet<number> = new Set([0, 429, 503]);

export class LiveRows<Line, Row extends OrderedRow> {
  #rows: OrderedRows<Row>;
  /** Rows that wait to be put into the list. */
  #pending = new Map<number, Row>();
  #timer: number | undefined;
  #stop: AbortController | null = null;
  #started = false;
  #version = createSignal(0);
  #loading = createSignal(false);
  #error = createSignal<RequestError | null>(null);
  #gone = createSignal(0);
  #missed = createSignal(0);
  #order = createSignal<SortOrder>({ column: "", descending: false });
  #unknown = createSignal<string | null>(null);
  #filter = "";

  constructor(private readonly source: RowSource<Line, Row>) {
    this.#rows = new OrderedRows(source.limit, source.natural);
  }

  /** The rows that the filter accepts, in order. */
  shown = (): readonly Row[] => (this.#version[0](), this.#rows.shown);
  /** Whether it was shown once. */
  started = (): boolean => (this.#version[0](), this.#started);
  size = (): number => (this.#version[0](), this.#rows.size);
  /** Lines that are older than what the server or this page keeps. */
  dropped = (): number => (this.#version[0](), this.#gone[0]() + this.#rows.dropped);
  /** Lines that did not reach the page, or were not as expected. */
  missed = (): number => this.#missed[0]();
  loading = (): boolean => this.#loading[0]();
  error = (): RequestError | null => this.#error[0]();
  order = (): SortOrder => this.#order[0]();
  /** A name before a colon in the filter that is no field. */
  unknownField = (): string | null => this.#unknown[0]();

  byKey(key: number): Row | undefined {
    this.#version[0]();
    return this.#rows.find(key);
  }

  sort(order: SortOrder): void {
    const compare = this.source.orders[order.column] ?? this.source.natural;
    this.#rows.sortBy(order.descending ? (a, b) => compare(b, a) : compare);
    this.#order[1](order);
    this.#changed();
  }

  filter(text: string): void {
    if (text === this.#filter) return;
    this.#filter = text;
    const parsed = parseFilter(text, this.source.filter);
    this.#rows.filterBy(parsed.accept);
    this.#unknown[1](parsed.unknown);
    this.#changed();
  }

  /** Takes the data of an event. Before the list is loaded, the pages will have it. */
  take(text: string): void {
    if (!this.#started) return;
    let line: Line;
    try {
      line = JSON.parse(text) as Line;
    } catch {
      return this.miss(1);
    }
    this.#enqueue(line, text);
  }

  /** Notes that lines did not reach the page. */
  miss(lines: number): void {
    this.#missed[1]((many) => many + lines);
  }

  /** Begins the list, at the first call: loads what there is, and takes events from now on. */
  start(): void {
    if (this.#started) return;
    this.#started = true;
    this.#changed();
    void this.#load();
  }

  async #load(): Promise<void> {
    const stop = new AbortController();
    this.#stop = stop;
    this.#loading[1](true);
    try {
      let after: string | number | null = null;
      do {
        const page: RowsPage<Line> = await this.#page(after, stop.signal);
        this.#gone[1](page.dropped);
        for (const line of page.lines) this.#enqueue(line, null);
        after = page.next;
      } while (after !== null);
      this.#error[1](null);
    } catch (error) {
      if (stop.signal.aborted) return;
      this.#error[1](error instanceof RequestError ? error : new RequestError(0, String(error)));
    }
    this.#loading[1](false);
  }

  close(): void {
    this.#stop?.abort();
    window.clearTimeout(this.#timer);
  }

  /** A page; a server that is busy or away for a moment is asked again. */
  async #page(after: string | number | null, signal: AbortSignal): Promise<RowsPage<Line>> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.source.page(after, signal);
      } catch (error) {
        const passes = error instanceof RequestError && PASSING.has(error.status);
        if (!passes || signal.aborted || attempt === ATTEMPTS) throw error;
        await new Promise((resolve) => window.setTimeout(resolve, attempt * RETRY_WAIT));
      }
    }
  }

  #enqueue(line: Line, text: string | null): void {
    let row: Row | null;
    try {
      row = this.source.row(line, text, this.#find);
    } catch {
      // A line of another form than the schema's.
      return this.miss(1);
    }
    if (!row) return;
    this.#pending.set(row.key, row);
    this.#timer ??= window.setTimeout(this.#flush, FLUSH_INTERVAL);
  }

  #find = (key: number): Row | undefined => this.#pending.get(key) ?? this.#rows.find(key);

  #flush = (): void => {
    this.#timer = undefined;
    this.#rows.put([...this.#pending.values()]);
    this.#pending.clear();
    this.#changed();
  };

  #changed(): void {
    this.#version[1]((version) => version + 1);
  }
}
