// The HTTP transactions of a capture as a waterfall, like the network panel of a browser.

import { createMemo, createSignal, For, Show, type JSX } from "solid-js";
import { began, MAX_INDEX, type TransactionRow } from "../data/transaction_rows.ts";
import { bars, place, spanOf, ticks, union, type Span } from "../data/waterfall.ts";
import { bytes, clock, dateAndClock, duration } from "../format.ts";
import type { CaptureLists } from "../state/capture_lists.ts";
import { route } from "../state/route.ts";
import type { GridColumn } from "../ui/grid.tsx";
import { PhaseBar } from "../ui/phase_bar.tsx";
import { HttpDetail } from "./http_detail.tsx";
import { ListView } from "./list_view.tsx";

const HELP =
  "Words are searched in method, status, URL and type. Fields: status:404 status:5xx method:post host: type:json client: flow: bytes:>10k ms:>100 header:cookie is:incomplete. A minus before a word excludes it.";

/** The axis of the waterfall: bars are at their time, or their beginnings are aligned. */
type Axis = { kind: "clock"; span: Span } | { kind: "duration"; span: Span };

const statusClass = (status: number | null): string =>
  status === null
    ? "muted"
    : status >= 500
      ? "bad strong"
      : status >= 400
        ? "bad"
        : status >= 300
          ? "muted"
          : "";

const COLUMNS: readonly GridColumn<TransactionRow>[] = [
  {
    id: "status",
    title: "Status",
    width: 46,
    align: "end",
    sort: "status",
    cell: (row) => (
      <span class={statusClass(row().status)} title={row().why ?? undefined}>
        {row().status ?? "–"}
        {row().complete ? "" : "!"}
      </span>
    ),
  },
  { id: "method", title: "Method", width: 52, sort: "method", cell: (row) => row().method },
  {
    id: "url",
    title: "URL",
    width: 150,
    grow: 3,
    sort: "url",
    cell: (row) => (
      <span class="url" title={row().host + row().target}>
        <span class="muted">{row().host}</span>
        {row().target}
      </span>
    ),
  },
  {
    id: "client",
    title: "Client",
    width: 130,
    sort: "client",
    leaves: 6,
    cell: (row) => <span class="mono">{row().client}</span>,
  },
  {
    id: "type",
    title: "Type",
    width: 90,
    grow: 1,
    sort: "type",
    leaves: 4,
    cell: (row) => <span title={row().type}>{row().type.replace(/^(application|text)\//, "")}</span>,
  },
  {
    id: "bytes",
    title: "Size",
    width: 66,
    align: "end",
    sort: "bytes",
    largestFirst: true,
    leaves: 3,
    hint: "Bytes of the response's body, decoded",
    cell: (row) => bytes(row().bytes),
  },
  {
    id: "duration",
    title: "Time",
    width: 66,
    align: "end",
    sort: "duration",
    largestFirst: true,
    leaves: 1,
    cell: (row) => duration(row().durationUs),
  },
  {
    id: "time",
    title: "Started",
    width: 88,
    sort: "time",
    leaves: 5,
    cell: (row) => <span title={dateAndClock(began(row()))}>{clock(began(row()))}</span>,
  },
];

function waterfallColumn(axis: () => Axis, turn: () => void): GridColumn<TransactionRow> {
  return {
    id: "waterfall",
    title: "",
    width: 150,
    grow: 2,
    leaves: 2,
    head: () => <WaterfallHead axis={axis()} onTurn={turn} />,
    cell: (row) => <WaterfallCell row={row()} axis={axis()} />,
  };
}

export function HttpView(props: { capture: string; lists: CaptureLists }): JSX.Element {
  const list = (): CaptureLists["http"] => props.lists.http;
  const [inView, setInView] = createSignal<readonly TransactionRow[]>([]);
  const [kind, setKind] = createSignal<Axis["kind"]>("clock");
  const selected = createMemo(() => {
    const parts = /^(\d+)\.(\d+)$/.exec(route().item ?? "");
    return parts ? Number(parts[1]) * MAX_INDEX + Number(parts[2]) : null;
  });
  const selectedRow = createMemo(() => (selected() === null ? undefined : list().byKey(selected() ?? 0)));
  // The axis has what is in view: that of a long capture would show each bar as a dot.
  const axis = createMemo((): Axis => {
    if (kind() === "clock")
      return { kind: "clock", span: union(inView().map((row) => spanOf(row.phases))) ?? { from: 0, to: 1 } };
    const longest = inView().reduce((most, row) => {
      const span = spanOf(row.phases);
      return Math.max(most, span ? span.to - span.from : 0);
    }, 1);
    return { kind: "duration", span: { from: 0, to: longest } };
  });
  const turn = (): void => void setKind((now) => (now === "clock" ? "duration" : "clock"));
  const all = [...COLUMNS, waterfallColumn(axis, turn)];
  return (
    <ListView
      capture={props.capture}
      list={list()}
      name="http"
      label="HTTP transactions"
      what={["transaction", "transactions"]}
      none="No HTTP transactions yet. They appear when they end."
      filterExample="status:5xx host:example.com ms:>200"
      filterHelp={HELP}
      columns={all}
      inTime={["time"]}
      selected={selected()}
      itemOf={(row) => `${row.flow}.${row.index}`}
      rowClass={(row) => (row.complete ? "" : "incomplete")}
      onWindow={setInView}
      detail={
        <Show
          when={selectedRow()}
          fallback={
            <p class="blank muted">
              {list().loading() ? "Loading…" : "This transaction is not in the list any more."}
            </p>
          }
        >
          {(row) => <HttpDetail capture={props.capture} row={row()} />}
        </Show>
      }
    />
  );
}

function WaterfallHead(props: { axis: Axis; onTurn: () => void }): JSX.Element {
  const marks = (): number[] => {
    const width = props.axis.span.to - props.axis.span.from;
    // The switch is at the right.
    return ticks(width, 4).filter((tick) => tick < width * 0.6);
  };
  return (
    <div class="waterfall-head">
      <For each={marks()}>
        {(tick) => (
          <span
            class="tick"
            style={{
              left: `${place(tick, { from: 0, to: props.axis.span.to - props.axis.span.from }) * 100}%`,
            }}
          >
            {duration(tick)}
          </span>
        )}
      </For>
      <button
        type="button"
        class="axis-turn"
        onClick={() => props.onTurn()}
        title={
          props.axis.kind === "clock"
            ? "Bars are at their time; click to align their beginnings"
            : "Beginnings are aligned; click to place bars at their time"
        }
      >
        {props.axis.kind === "clock" ? "Clock" : "Length"}
      </button>
    </div>
  );
}

function WaterfallCell(props: { row: TransactionRow; axis: Axis }): JSX.Element {
  const shift = (): number => (props.axis.kind === "duration" ? (spanOf(props.row.phases)?.from ?? 0) : 0);
  return (
    <div class="waterfall" aria-hidden="true">
      <For each={bars(props.row.phases)}>
        {(bar) => <PhaseBar bar={bar} axis={props.axis.span} shift={shift()} />}
      </For>
    </div>
  );
}
