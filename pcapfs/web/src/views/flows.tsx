// The flows of a capture as they appear.

import { createMemo, Show, type JSX } from "solid-js";
import type { FlowRow } from "../data/flow_rows.ts";
import { bytes, clock, count, dateAndClock, duration } from "../format.ts";
import type { CaptureLists } from "../state/capture_lists.ts";
import { route } from "../state/route.ts";
import type { GridColumn } from "../ui/grid.tsx";
import { FlowDetail } from "./flow_detail.tsx";
import { ListView } from "./list_view.tsx";

function trouble(row: FlowRow): string {
  const parts = [
    row.gaps > 0 ? `${row.gaps} gap${row.gaps === 1 ? "" : "s"}` : "",
    row.retransmitted > 0 ? `${row.retransmitted} retr.` : "",
    row.outOfOrder > 0 ? `${row.outOfOrder} ooo` : "",
  ];
  return parts.filter(Boolean).join(", ");
}

const COLUMNS: readonly GridColumn<FlowRow>[] = [
  {
    id: "number",
    title: "#",
    width: 56,
    align: "end",
    sort: "number",
    cell: (row) => <span class="muted">{row().key}</span>,
  },
  {
    id: "first",
    title: "First",
    width: 92,
    sort: "first",
    leaves: 4,
    cell: (row) => <span title={dateAndClock(row().first)}>{clock(row().first)}</span>,
  },
  { id: "application", title: "Kind", width: 44, sort: "application", cell: (row) => row().application },
  {
    id: "client",
    title: "Client",
    width: 130,
    grow: 2,
    sort: "client",
    cell: (row) => (
      <span class="mono" title={row().client}>
        {row().client}
      </span>
    ),
  },
  {
    id: "server",
    title: "Server",
    width: 130,
    grow: 2,
    sort: "server",
    cell: (row) => (
      <span class="mono" title={row().server}>
        {row().server}
      </span>
    ),
  },
  {
    id: "about",
    title: "About",
    width: 120,
    grow: 2,
    sort: "about",
    leaves: 5,
    hint: "Name of the server in TLS, or the number of transactions",
    cell: (row) => <span title={row().about}>{row().about}</span>,
  },
  {
    id: "state",
    title: "State",
    width: 72,
    sort: "state",
    leaves: 2,
    cell: (row) => <span class={`flow-state is-${row().state}`}>{row().state.replace("_", " ")}</span>,
  },
  {
    id: "packets",
    title: "Packets",
    width: 64,
    align: "end",
    sort: "packets",
    largestFirst: true,
    leaves: 6,
    cell: (row) => count(row().packets),
  },
  {
    id: "bytes",
    title: "Bytes",
    width: 70,
    align: "end",
    sort: "bytes",
    largestFirst: true,
    leaves: 1,
    cell: (row) => bytes(row().bytes),
  },
  {
    id: "duration",
    title: "Duration",
    width: 76,
    align: "end",
    sort: "duration",
    largestFirst: true,
    leaves: 7,
    cell: (row) => duration(row().durationUs),
  },
  {
    id: "trouble",
    title: "Trouble",
    width: 96,
    grow: 1,
    sort: "trouble",
    largestFirst: true,
    leaves: 3,
    hint: "Gaps, retransmissions, segments out of order",
    cell: (row) => (
      <span title={trouble(row())} classList={{ bad: row().gaps > 0, warn: row().gaps === 0 }}>
        {trouble(row())}
      </span>
    ),
  },
];

const HELP =
  "Words are searched in addresses, names and states. Fields: host: client: server: port: app: state: bytes:>10k packets: ms:>100 has:gap has:retransmission flow:. A minus before a word excludes it.";

export function FlowsView(props: { capture: string; lists: CaptureLists }): JSX.Element {
  const selected = createMemo(() => {
    const number = Number(route().item);
    return route().item !== null && Number.isSafeInteger(number) ? number : null;
  });
  return (
    <ListView
      capture={props.capture}
      list={props.lists.flows}
      name="flows"
      label="Flows"
      what={["flow", "flows"]}
      none="No flows yet. They appear with their first packet."
      filterExample="host:10.0.0.1 port:443 -dns"
      filterHelp={HELP}
      columns={COLUMNS}
      inTime={["number", "first"]}
      selected={selected()}
      itemOf={(row) => String(row.key)}
      rowClass={(row) => (row.ended ? "ended" : "")}
      detail={
        <Show when={selected() !== null}>
          <FlowDetail
            capture={props.capture}
            flow={selected() ?? 0}
            row={props.lists.flows.byKey(selected() ?? 0)}
          />
        </Show>
      }
    />
  );
}
