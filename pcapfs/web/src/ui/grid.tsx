// A table of any number of rows, of which those in view are drawn. It has one place in the order of
// the tab key; the arrow keys choose a row, as in the lists of a browser's developer tools.

import { createEffect, createMemo, createSignal, For, Index, on, onCleanup, onMount, Show, type JSX } from "solid-js";
import { isAtEnd, listWindow, scrollTo } from "../data/list_window.ts";
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
  let body!: HTMLDivElement;
  const id = `grid${++grids}`;
  const [top, setTop] = createSignal(0);
  const [size, setSize] = createSignal({ width: 0, height: 400 });
  const columns = createMemo(() => fitting(props.columns, size().width), [], {
    equals: (a, b) => a.length === b.length && a.every((one, at) => one === b[at]),
  });
  const template = (): string => columns()
    .map(({ width, grow }) => (grow ? `minmax(${width}px, ${grow}fr)` : `${width}px`)).join(" ");
  const view = createMemo(() => listWindow(top(), size().height, ROW_HEIGHT, props.rows.length), undefined, {
    equals: (a, b) => a.first === b.first && a.end === b.end,
  });
  const drawn = createMemo(() => props.rows.slice(view().first, view().end));
  const selectedAt = createMemo(() =>
    props.selected === null ? -1 : props.rows.findIndex((row) => props.keyOf(row) === props.selected));
  let atEnd = true;

  const measure = (): void => {
    setSize({ width: scroller.clientWidth, height: Math.max(0, scroller.clientHeight - ROW_HEIGHT) });
    if (props.grows && atEnd && props.selected === null) scroller.scrollTop = scroller.scrollHeight;
  };
  onMount(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(scroller);
    onCleanup(() => observer.disconnect());
  });
  createEffect(on(() => props.rows, (rows) => {
    // A row that one looks at stays where it is.
    if (props.grows && atEnd && props.selected === null) {
      scroller.scrollTop = rows.length * ROW_HEIGHT;
      setTop(scroller.scrollTop);
    }
  }));
  createEffect(() => {
    const all = drawn();
    const [first, end] = [Math.ceil(top() / ROW_HEIGHT), Math.floor((top() + size().height) / ROW_HEIGHT)];
    props.onWindow?.(all.slice(Math.max(0, first - view().first), Math.max(1, end - view().first)));
  });

  const onScroll = (): void => {
    setTop(scroller.scrollTop);
    atEnd = isAtEnd(scroller.scrollTop, size().height, ROW_HEIGHT, props.rows.length);
  };
  const select = (at: number): void => {
    const row = props.rows[Math.min(props.rows.length - 1, Math.max(0, at))];
    if (!row) return;
    props.onSelect(row);
    scroller.scrollTop = scrollTo(Math.min(props.rows.length - 1, Math.max(0, at)), scroller.scrollTop, size().height, ROW_HEIGHT);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
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
  const turn = (column: GridColumn<Row>): void => {
    if (!column.sort) return;
    const same = props.order?.column === column.sort;
    props.onOrder?.({ column: column.sort, descending: same ? !props.order?.descending : column.largestFirst ?? false });
  };

  return (
    <div class="grid" role="grid" aria-label={props.label} aria-rowcount={props.rows.length + 1}
      aria-activedescendant={selectedAt() >= 0 ? `${id}-${selectedAt()}` : undefined}
      tabindex="0" onKeyDown={onKeyDown} ref={scroller} onScroll={onScroll}
      style={{ "--columns": template() }}>
      <div class="grid-head" role="row" aria-rowindex="1">
        <For each={columns()}>{(column) => (
          <GridHead column={column} order={props.order} onTurn={() => turn(column)} />
        )}</For>
      </div>
      <div class="grid-body" ref={body} style={{ height: `${props.rows.length * ROW_HEIGHT}px` }} role="rowgroup">
        <Index each={drawn()}>{(row, slot) => {
          const at = (): number => view().first + slot;
          return (
            <div role="row" id={`${id}-${at()}`} aria-rowindex={at() + 2}
              aria-selected={props.keyOf(row()) === props.selected}
              class={`grid-row ${props.rowClass?.(row()) ?? ""}`}
              style={{ transform: `translateY(${at() * ROW_HEIGHT}px)` }}
              onClick={() => props.onSelect(row())}>
              <For each={columns()}>{(column) => (
                <div role="gridcell" class="cell" classList={{ end: column.align === "end" }}>{column.cell(row)}</div>
              )}</For>
            </div>
          );
        }}</Index>
      </div>
      <Show when={props.rows.length === 0}><div class="grid-empty">{props.empty}</div></Show>
    </div>
  );
}

function GridHead<Row>(props: { column: GridColumn<Row>; order: SortOrder | undefined; onTurn: () => void }): JSX.Element {
  const sorted = (): "ascending" | "descending" | "none" =>
    !props.column.sort || props.order?.column !== props.column.sort ? "none"
      : props.order.descending ? "descending" : "ascending";
  return (
    <div role="columnheader" class="cell" classList={{ end: props.column.align === "end" }}
      aria-sort={props.column.sort ? sorted() : undefined} title={props.column.hint}>
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
