// The bar above a list: the filter, how many rows there are, what is not shown, and a switch that
// holds the list still while one looks at it.

import { createSignal, Show, type Accessor, type JSX } from "solid-js";
import { count, plural } from "../format.ts";
import { reload } from "../state/session.ts";

export interface HeldRows<Row> {
  is: Accessor<boolean>;
  rows: Accessor<readonly Row[]>;
  toggle: () => void;
}

/** The rows as they are, or as they were when they were held. */
export function createHeld<Row>(rows: Accessor<readonly Row[]>): HeldRows<Row> {
  const [kept, setKept] = createSignal<readonly Row[] | null>(null);
  return {
    is: () => kept() !== null,
    rows: () => kept() ?? rows(),
    toggle: () => setKept((now) => (now === null ? rows() : null)),
  };
}

interface ListSummary {
  shown: () => readonly unknown[];
  size: () => number;
  dropped: () => number;
  missed: () => number;
  loading: () => boolean;
  error: () => Error | null;
}

export function ListBar<Row>(props: {
  list: ListSummary;
  held: HeldRows<Row>;
  what: readonly [one: string, many: string];
  capture: string;
  children: JSX.Element;
}): JSX.Element {
  const total = (): string => {
    const [shown, size] = [props.held.rows().length, props.list.size()];
    return shown === size ? plural(size, ...props.what) : `${count(shown)} of ${plural(size, ...props.what)}`;
  };
  return (
    <div class="list-bar">
      {props.children}
      <span class="list-count">
        {total()}
        <Show when={props.list.loading()}>, loading…</Show>
      </span>
      <Show when={props.list.dropped() > 0}>
        <span
          class="warn"
          title="The lists of the capture and of this page have a bound; the oldest lines left."
        >
          {count(props.list.dropped())} older not kept
        </span>
      </Show>
      <Show when={props.list.missed() > 0}>
        <span class="bad" role="status">
          {plural(props.list.missed(), "line")} did not reach this page{" "}
          <button type="button" class="button" onClick={() => reload(props.capture)}>
            Load again
          </button>
        </span>
      </Show>
      <Show when={props.list.error()}>
        {(error) => (
          <span class="bad" role="alert">
            {error().message}{" "}
            <button type="button" class="button" onClick={() => reload(props.capture)}>
              Load again
            </button>
          </span>
        )}
      </Show>
      <button
        type="button"
        class="button hold"
        aria-pressed={props.held.is()}
        data-action="hold"
        title="Holds the list still while the capture goes on"
        onClick={() => props.held.toggle()}
      >
        {props.held.is() ? "Held" : "Hold"}
      </button>
    </div>
  );
}
