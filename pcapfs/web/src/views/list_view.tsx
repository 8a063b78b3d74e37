// What the lists of a capture have in common: the bar with the filter, the rows, and beside them what
// is selected. Filter and selection are in the address.

import { createEffect, Show, type JSX } from "solid-js";
import type { OrderedRow } from "../data/ordered_rows.ts";
import type { LiveRows } from "../state/live_rows.ts";
import { refine, route } from "../state/route.ts";
import { Grid, type GridColumn } from "../ui/grid.tsx";
import { FilterField, Split } from "../ui/parts.tsx";
import { createHeld, ListBar } from "./list_bar.tsx";

export function ListView<Line, Row extends OrderedRow>(props: {
  capture: string;
  list: LiveRows<Line, Row>;
  /** The name under which the browser keeps the size of the details. */
  name: string;
  label: string;
  what: readonly [one: string, many: string];
  /** What the list says when it has no rows yet. */
  none: string;
  filterExample: string;
  filterHelp: string;
  columns: readonly GridColumn<Row>[];
  /** The columns whose ascending order puts new rows at the end. */
  inTime: readonly string[];
  selected: number | null;
  /** The part of the address that selects a row. */
  itemOf: (row: Row) => string;
  rowClass: (row: Row) => string;
  onWindow?: (rows: readonly Row[]) => void;
  detail: JSX.Element;
}): JSX.Element {
  createEffect(() => props.list.filter(route().filter));
  const held = createHeld(() => props.list.shown());
  const grows = (): boolean => {
    const { column, descending } = props.list.order();
    return !held.is() && !descending && (column === "" || props.inTime.includes(column));
  };
  return (
    <div class="list-view">
      <ListBar list={props.list} held={held} what={props.what} capture={props.capture}>
        <FilterField
          value={route().filter}
          placeholder={`Filter: ${props.filterExample}`}
          help={props.filterHelp}
          unknown={props.list.unknownField()}
          onInput={(filter) => refine({ filter })}
        />
      </ListBar>
      <Split
        name={props.name}
        open={props.selected !== null}
        list={
          <Grid
            label={props.label}
            columns={props.columns}
            rows={held.rows()}
            keyOf={(row) => row.key}
            selected={props.selected}
            order={props.list.order()}
            onOrder={(order) => props.list.sort(order)}
            grows={grows()}
            onWindow={(rows) => props.onWindow?.(rows)}
            onSelect={(row) => refine({ item: row ? props.itemOf(row) : null })}
            rowClass={(row) => props.rowClass(row)}
            empty={
              <Show when={props.list.size() > 0} fallback={props.list.loading() ? "Loading…" : props.none}>
                No {props.what[0]} matches the filter.
              </Show>
            }
          />
        }
        detail={props.detail}
      />
    </div>
  );
}
