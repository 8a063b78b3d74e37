// One flow: its packets in time, its counters, its files.

import { createEffect, createSignal, For, Match, on, onCleanup, Show, Switch, type JSX } from "solid-js";
import { findFlow, flowFileUrl } from "../api/request.ts";
import type { FlowSide, FlowWithFiles } from "../api/types.ts";
import type { FlowRow } from "../data/flow_rows.ts";
import { bytes, count, dateAndClock, duration, endpoint, microseconds } from "../format.ts";
import { go } from "../state/route.ts";
import { Facts } from "../ui/parts.tsx";
import { Detail } from "./detail.tsx";
import { FlowTimeline } from "./flow_timeline.tsx";

type FlowTab = "timeline" | "summary" | "files";
const [tab, setTab] = createSignal<FlowTab>("timeline");

/** Milliseconds that a selection must last before anything is asked for: the arrow keys run through rows. */
const SETTLE = 60;

export function FlowDetail(props: { capture: string; flow: number; row: FlowRow | undefined }): JSX.Element {
  const [flow, setFlow] = createSignal<FlowWithFiles | null>(null);
  const [error, setError] = createSignal<string | null>(null);
  // Again when the list has a newer state of it.
  createEffect(
    on(
      () => [props.capture, props.flow, props.row?.ended] as const,
      ([capture, number]) => {
        const stop = new AbortController();
        const timer = window.setTimeout(() => {
          findFlow(capture, number, stop.signal).then(
            (found) => (setFlow(found), setError(null)),
            (failure: Error) => stop.signal.aborted || (setFlow(null), setError(failure.message)),
          );
        }, SETTLE);
        onCleanup(() => (window.clearTimeout(timer), stop.abort()));
      },
    ),
  );
  const known = (): FlowWithFiles | null => (flow()?.flow === props.flow ? flow() : null);
  return (
    <Detail
      label={`Flow ${props.flow}`}
      title={
        <h2>
          Flow {props.flow}
          <Show when={props.row}>
            {(row) => (
              <span class="mono detail-ends">
                {row().client} → {row().server}
              </span>
            )}
          </Show>
        </h2>
      }
      actions={
        <>
          <div class="detail-actions">
            <a class="button" download="" href={flowFileUrl(props.capture, props.flow, "packets.pcap")}>
              Packets
            </a>
            <Show when={known()?.http}>
              <button
                type="button"
                class="button"
                onClick={() => go({ capture: props.capture, tab: "http", filter: `flow:${props.flow}` })}
              >
                HTTP requests
              </button>
              <a class="button" download="" href={flowFileUrl(props.capture, props.flow, "http.har")}>
                HAR
              </a>
            </Show>
          </div>
          <Show when={error()}>
            <p class="bad" role="alert">
              {error()}
            </p>
          </Show>
        </>
      }
      tabsLabel="Parts of the flow"
      tab={tab()}
      onTab={setTab}
      tabs={[
        { id: "timeline", title: "Timeline" },
        { id: "summary", title: "Summary" },
        { id: "files", title: "Files" },
      ]}
    >
      <Switch>
        <Match when={tab() === "timeline"}>
          <FlowTimeline capture={props.capture} flow={props.flow} packets={props.row?.packets ?? null} />
        </Match>
        <Match when={tab() === "summary"}>
          <Show when={known()}>{(one) => <Summary flow={one()} />}</Show>
        </Match>
        <Match when={tab() === "files"}>
          <Show when={known()}>{(one) => <Files capture={props.capture} flow={one()} />}</Show>
        </Match>
      </Switch>
    </Detail>
  );
}

function Summary(props: { flow: FlowWithFiles }): JSX.Element {
  const flow = (): FlowWithFiles => props.flow;
  return (
    <div class="detail-body">
      <Facts
        items={[
          [
            "state",
            flow().state.replace("_", " ") + (flow().closed_by ? `, closed by the ${flow().closed_by}` : ""),
          ],
          ["first packet", dateAndClock(microseconds(flow().first))],
          ["last packet", dateAndClock(microseconds(flow().last))],
          ["duration", duration(flow().duration_us)],
          ["handshake", duration(flow().handshake_us)],
          flow().vlan.length > 0 ? ["VLAN", flow().vlan.join(", ")] : null,
          flow().tunnel ? ["tunnel", `${flow().tunnel?.kind ?? ""} ${flow().tunnel?.id ?? ""}`] : null,
          flow().tls
            ? ["TLS", [flow().tls?.version, flow().tls?.sni, flow().tls?.alpn].filter(Boolean).join(" · ")]
            : null,
        ]}
      />
      <table class="plain sides">
        <thead>
          <tr>
            <th scope="col" />
            <th scope="col" class="end">
              Client
            </th>
            <th scope="col" class="end">
              Server
            </th>
          </tr>
        </thead>
        <tbody>
          <For each={SIDES}>
            {([name, of, look]) => (
              <tr>
                <th scope="row">{name}</th>
                <td class={`end number ${of(flow().client) === "0" ? "" : look}`}>{of(flow().client)}</td>
                <td class={`end number ${of(flow().server) === "0" ? "" : look}`}>{of(flow().server)}</td>
              </tr>
            )}
          </For>
        </tbody>
      </table>
      <GapList name="client" side={flow().client} />
      <GapList name="server" side={flow().server} />
    </div>
  );
}

const SIDES: readonly (readonly [name: string, of: (side: FlowSide) => string, look: "" | "bad" | "warn"])[] =
  [
    ["address", (side) => endpoint(side.address, side.port), ""],
    ["packets", (side) => count(side.packets), ""],
    ["bytes on the wire", (side) => bytes(side.bytes), ""],
    ["bytes of stream", (side) => bytes(side.stream_bytes), ""],
    ["sent again", (side) => count(side.retransmitted), "warn"],
    ["out of order", (side) => count(side.out_of_order), "warn"],
    ["copies that differ", (side) => count(side.overlapping), "bad"],
    ["gaps", (side) => count(side.gaps.length), "bad"],
  ];

/** Gaps that are listed. */
const MAX_GAPS = 50;

function GapList(props: { name: string; side: FlowSide }): JSX.Element {
  return (
    <Show when={props.side.gaps.length > 0}>
      <h3>Missing of the {props.name}'s stream</h3>
      <ul class="gaps mono">
        <For each={props.side.gaps.slice(0, MAX_GAPS)}>
          {([from, to, why]) => (
            <li>
              {count(from)} – {count(to)}{" "}
              <span class="muted">
                {bytes(to - from)}, {why === "missing" ? "not captured" : "overwritten"}
              </span>
            </li>
          )}
        </For>
      </ul>
      <Show when={props.side.gaps.length > MAX_GAPS}>
        <p class="muted">and {count(props.side.gaps.length - MAX_GAPS)} more</p>
      </Show>
    </Show>
  );
}

function Files(props: { capture: string; flow: FlowWithFiles }): JSX.Element {
  return (
    <div class="detail-body">
      <table class="plain">
        <thead>
          <tr>
            <th scope="col">File</th>
            <th scope="col" class="end">
              Size
            </th>
          </tr>
        </thead>
        <tbody>
          <For each={props.flow.files}>
            {(file) => (
              <tr>
                <td>
                  <a class="mono" download="" href={flowFileUrl(props.capture, props.flow.flow, file.name)}>
                    {file.name}
                  </a>
                </td>
                <td class="end number">{file.size === null ? "–" : bytes(file.size)}</td>
              </tr>
            )}
          </For>
        </tbody>
      </table>
    </div>
  );
}
