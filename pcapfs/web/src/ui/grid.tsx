// A table of any number of rows, of which those in view are drawn. It has one place in the order of
// the tab key; the arrow keys choose a row, as in the lists of a browser's developer tools.

import {
  createEffect,
  createMemo,
  createSignal,
  For,
  Index,
  on,
  onCleanup,
  onMount,
  Show,
  type Accessor,
  type JSX,
} from "solid-js";
import { isAtEnd, listWindow, rowOfSlot, scrollTo, slotsOf, type ListWindow } from "../data/list_window.ts";
import type { SortOrder } from "../state/live_rows.ts";

export interface GridColumn<Row> {
  id: string;
  title: string;
  /** Pixels it needs. */
  width: number;
  /** Share of the room that is left; 0 keeps the width. */
  grow?: number;
  align?: "end";
  /** Columns with the largest number leave first when there is little room; 0 stays. */
  leaves?: number;
  /** The name of its order, if the list can be sorted by it. */
  sort?: string;
  /** Whether the largest come first at the first click. */
  largestFirst?: boolean;
  /** The meaning of the title. */
  hint?: string;
  head?: () => JSX.Element;
  cell: (row: () => Row) => JSX.Element;
}

export interface GridProps<Row> {
  label: string;
  columns: readonly GridColumn<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string | number;
  selected: string | number | null;
  onSelect: (row: Row | null) => void;
  order?: SortOrder;
  onOrder?: (order: SortOrder) => void;
  rowClass?: (row: Row) => string;
  /** Whether new rows come at the end; the end stays in view then if it is. */
  grows?: boolean;
  empty: JSX.Element;
  /** The rows that are in view. */
  onWindow?: (rows: readonly Row[]) => void;
}

export const ROW_HEIGHT = 22;
const GAP = 12;
let grids = 0;

/** The columns for which there is room, those that may leave last. */
function fitting<Row>(columns: readonly GridColumn<Row>[], width: number): readonly GridColumn<Row>[] {
  const shown = [...columns];
  const needed = (): number => shown.reduce((sum, column) => sum + column.width + GAP, GAP);
  while (width > 0 && needed() > width) {
    const leaving = shown.reduce((a, b) => ((b.leaves ?? 0) > (a.leaves ?? 0) ? b : a));
    if (!leaving.leaves) break;
    shown.splice(shown.indexOf(leaving), 1);
  }
  return shown;
}

export function Grid<Row>(props: GridProps<Row>): JSX.Element {
  let scroller!: HTMLDivElement;
  const id = `grid${++grids}`;
  const { size, view, onScroll, show } = createViewport(props, () => scroller);
  const columns = createMemo(() => fitting(props.columns, size().width), [], {
    equals: (a, b) => a.length === b.length && a.every((one, at) => one === b[at]),
  });
  const template = (): string =>
    columns()
      .map(({ width, grow }) => (grow ? `minmax(${width}px, ${grow}fr)` : `${width}px`))
      .join(" ");
  // Elements are kept while rows come and go: to make them takes longer than to change them.
  const slots = createMemo(() =>
    Array.from({ length: slotsOf(size().height, ROW_HEIGHT) }, (_, slot) => slot),
  );
  const selectedAt = createMemo(() =>
    props.selected === null ? -1 : props.rows.findIndex((row) => props.keyOf(row) === props.selected),
  );
  // A row that an address chooses comes into view once it is there.
  const found = createMemo(() => (selectedAt() >= 0 ? props.selected : null));
  createEffect(on(found, (key) => key !== null && show(selectedAt())));
  const onKeyDown = createKeys(props, selectedAt, { size, view, show });
  const turn = (column: GridColumn<Row>): void => {
    if (!column.sort) return;
    const same = props.order?.column === column.sort;
    props.onOrder?.({
      column: column.sort,
      descending: same ? !props.order?.descending : (column.largestFirst ?? false),
    });
  };
  return (
    <div
      class="grid"
      role="grid"
      aria-label={props.label}
      aria-rowcount={props.rows.length + 1}
      aria-activedescendant={selectedAt() >= 0 ? `${id}-${selectedAt()}` : undefined}
      tabindex="0"
      onKeyDown={onKeyDown}
      ref={scroller}
      onScroll={onScroll}
      style={{ "--columns": template() }}
    >
      <div class="grid-head" role="row" aria-rowindex="1">
        <For each={columns()}>
          {(column) => <GridHead column={column} order={props.order} onTurn={() => turn(column)} />}
        </For>
      </div>
      <div class="grid-body" style={{ height: `${props.rows.length * ROW_HEIGHT}px` }} role="rowgroup">
        <Index each={slots()}>
          {(slot) => (
            <GridRow
              grid={props}
              id={id}
              at={rowOfSlot(slot(), slots().length, view().first)}
              columns={columns()}
            />
          )}
        </Index>
      </div>
      <Show when={props.rows.length === 0}>
        <div class="grid-empty">{props.empty}</div>
      </Show>
    </div>
  );
}

/** The keys that choose a row. */
function createKeys<Row>(
  props: GridProps<Row>,
  selectedAt: Accessor<number>,
  { size, view, show }: Pick<Viewport, "size" | "view" | "show">,
): (event: KeyboardEvent) => void {
  const select = (wanted: number): void => {
    const at = Math.min(props.rows.length - 1, Math.max(0, wanted));
    const row = props.rows[at];
    if (!row) return;
    props.onSelect(row);
    show(at);
  };
  return (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(size().height / ROW_HEIGHT) - 1);
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page }[event.key];
    if (step !== undefined) select(selectedAt() < 0 ? (step > 0 ? view().first : 0) : selectedAt() + step);
    else if (event.key === "Home") select(0);
    else if (event.key === "End") select(props.rows.length - 1);
    else if (event.key === "Escape" && props.selected !== null) props.onSelect(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}

interface Viewport {
  /** Pixels of the part in which rows are. */
  size: Accessor<{ width: number; height: number }>;
  view: Accessor<ListWindow>;
  onScroll: () => void;
  /** Scrolls so that a row is in view. */
  show: (row: number) => void;
}

/** The part of the list that is in view; it follows the end of a list that grows. */
function createViewport<Row>(props: GridProps<Row>, scroller: () => HTMLDivElement): Viewport {
  const [top, setTop] = createSignal(0);
  const [size, setSize] = createSignal({ width: 0, height: 400 });
  const view = createMemo(() => listWindow(top(), size().height, ROW_HEIGHT, props.rows.length), undefined, {
    equals: (a, b) => a.first === b.first && a.end === b.end,
  });
  let atEnd = true;
  // A row that one looks at stays where it is.
  const follows = (): boolean => Boolean(props.grows) && atEnd && props.selected === null;
  onMount(() => {
    const observer = new ResizeObserver(() => {
      const { clientWidth, clientHeight } = scroller();
      setSize({ width: clientWidth, height: Math.max(0, clientHeight - ROW_HEIGHT) });
      if (follows()) scroller().scrollTop = scroller().scrollHeight;
    });
    observer.observe(scroller());
    onCleanup(() => observer.disconnect());
  });
  createEffect(
    on(
      () => props.rows,
      (rows) => {
        if (!follows()) return;
        scroller().scrollTop = rows.length * ROW_HEIGHT;
        setTop(scroller().scrollTop);
      },
    ),
  );
  createEffect(() => {
    const first = Math.ceil(top() / ROW_HEIGHT);
    const end = Math.max(first + 1, Math.floor((top() + size().height) / ROW_HEIGHT));
    props.onWindow?.(props.rows.slice(first, end));
  });
  return {
    size,
    view,
    onScroll: () => {
      setTop(scroller().scrollTop);
      atEnd = isAtEnd(scroller().scrollTop, size().height, ROW_HEIGHT, props.rows.length);
    },
    show: (row) => {
      scroller().scrollTop = scrollTo(row, scroller().scrollTop, size().height, ROW_HEIGHT);
    },
  };
}

interface GridRowProps<Row> {
  grid: GridProps<Row>;
  id: string;
  at: number;
  columns: readonly GridColumn<Row>[];
}

/** An element for a row; it is hidden, with the row it had, while there is no row for it. */
function GridRow<Row>(props: GridRowProps<Row>): JSX.Element {
  const row = createMemo<Row | undefined>((before) => props.grid.rows[props.at] ?? before);
  const known = row as () => Row;
  return (
    <Show when={row() !== undefined}>
      <div
        role="row"
        id={`${props.id}-${props.at}`}
        aria-rowindex={props.at + 2}
        hidden={props.at >= props.grid.rows.length}
        aria-selected={props.grid.keyOf(known()) === props.grid.selected}
        class={`grid-row ${props.grid.rowClass?.(known()) ?? ""}`}
        style={{ transform: `translateY(${props.at * ROW_HEIGHT}px)` }}
        onClick={() => props.grid.onSelect(known())}
      >
        <For each={props.columns}>
          {(column) => (
            <div role="gridcell" class="cell" classList={{ end: column.align === "end" }}>
              {column.cell(known)}
            </div>
          )}
        </For>
      </div>
    </Show>
  );
}

function GridHead<Row>(props: {
  column: GridColumn<Row>;
  order: SortOrder | undefined;
  onTurn: () => void;
}): JSX.Element {
  const sorted = (): "ascending" | "descending" | "none" =>
    !props.column.sort || props.order?.column !== props.column.sort
      ? "none"
      : props.order.descending
        ? "descending"
        : "ascending";
  return (
    <div
      role="columnheader"
      class="cell"
      classList={{ end: props.column.align === "end" }}
      aria-sort={props.column.sort ? sorted() : undefined}
      title={props.column.hint}
    >
      <Show when={props.column.sort} fallback={props.column.head?.() ?? props.column.title}>
        <button type="button" class="sort" onClick={() => props.onTurn()}>
          {props.column.title}
          <span aria-hidden="true">{{ ascending: " ↑", descending: " ↓", none: "" }[sorted()]}</span>
        </button>
        {props.column.head?.()}
      </Show>
    </div>
  );
}
