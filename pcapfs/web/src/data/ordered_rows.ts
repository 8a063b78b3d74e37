// A large list that is sorted and filtered while it changes. A change costs one pass over the list,
// not a new sort: 100,000 rows take one or two milliseconds.

/** A row. It is not changed: a newer state of the same thing is another row with the same key. */
export interface OrderedRow {
  readonly key: number;
  /** Set by the list once a newer row has the same key, or the row has left. */
  stale?: boolean;
}

export type Compare<Row> = (a: Row, b: Row) => number;
export type Accept<Row> = (row: Row) => boolean;

/**
 * Rows by key, in an order; a filter chooses those that are shown.
 *
 * Invariant: `#order` has each row of `#rows` once, sorted, and `shown` has those that the filter
 * accepts in the same order.
 */
export class OrderedRows<Row extends OrderedRow> {
  #rows = new Map<number, Row>();
  #order: Row[] = [];
  #shown: Row[] = [];
  #compare: Compare<Row>;
  #accept: Accept<Row> = () => true;
  #dropped = 0;

  /** `limit` is the number of rows that are kept; those whose keys came first leave first. */
  constructor(
    private readonly limit: number,
    private readonly natural: Compare<Row>,
  ) {
    this.#compare = natural;
  }

  get size(): number {
    return this.#rows.size;
  }

  /** Rows that left for the limit. */
  get dropped(): number {
    return this.#dropped;
  }

  /** The rows that the filter accepts, in order. Another array after each change. */
  get shown(): readonly Row[] {
    return this.#shown;
  }

  find(key: number): Row | undefined {
    return this.#rows.get(key);
  }

  /** All rows, in order. */
  all(): readonly Row[] {
    return this.#order;
  }

  clear(): void {
    this.#rows.clear();
    this.#order = [];
    this.#shown = [];
    this.#dropped = 0;
  }

  sortBy(compare: Compare<Row>): void {
    this.#compare = compare;
    this.#order = [...this.#order].sort(this.#byOrder);
    this.#shown = this.#order.filter(this.#accept);
  }

  filterBy(accept: Accept<Row>): void {
    this.#accept = accept;
    this.#shown = this.#order.filter(accept);
  }

  /** Adds rows, and replaces those with the same key. Of several with one key, the last one counts. */
  put(rows: readonly Row[]): void {
    const added: Row[] = [];
    for (const row of rows) {
      const old = this.#rows.get(row.key);
      if (old === row) continue;
      if (old) old.stale = true;
      this.#rows.set(row.key, row);
      added.push(row);
    }
    this.#leave();
    const fresh = added.filter((row) => !row.stale).sort(this.#byOrder);
    this.#order = this.#merge(this.#order, fresh);
    this.#shown = this.#merge(this.#shown, fresh.filter(this.#accept));
  }

  /** Rows with equal columns keep the order of their keys, so that they do not jump. */
  #byOrder = (a: Row, b: Row): number => this.#compare(a, b) || this.natural(a, b);

  #leave(): void {
    const many = this.#rows.size - this.limit;
    if (many <= 0) return;
    // A tenth more than it must be, so that the lists are cleaned rarely.
    let leaving = many + Math.floor(this.limit / 10);
    for (const [key, row] of this.#rows) {
      if (leaving-- === 0) break;
      row.stale = true;
      this.#rows.delete(key);
      this.#dropped += 1;
    }
  }

  #merge(old: readonly Row[], fresh: readonly Row[]): Row[] {
    const merged: Row[] = [];
    let next = 0;
    for (const row of old) {
      if (row.stale) continue;
      for (let one = fresh[next]; one && this.#byOrder(one, row) < 0; one = fresh[++next]) {
        merged.push(one);
      }
      merged.push(row);
    }
    for (; next < fresh.length; next++) merged.push(fresh[next] as Row);
    return merged;
  }
}
