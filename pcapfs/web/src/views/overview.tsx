// A capture at a glance: its rates, what it dropped and why, what it keeps, and who reads it.

import { createResource, createSignal, createEffect, For, on, onCleanup, Show, type JSX } from "solid-js";
import { listReaders } from "../api/request.ts";
import type { Capture, Reader } from "../api/types.ts";
import { dropCauses } from "../data/history.ts";
import { bytes, count, dateAndClock, duration, microseconds, packetRate, plural, rate } from "../format.ts";
import { counted, historyOf, stream } from "../state/session.ts";
import { Facts } from "../ui/parts.tsx";
import { RatePlot } from "../ui/rate_plot.tsx";
import { ringSpan } from "./captures.tsx";

/** Milliseconds between two looks at the readers. */
const READERS_INTERVAL = 2000;

export function Overview(props: { capture: Capture }): JSX.Element {
  const status = (): Capture["status"] => props.capture.status;
  return (
    <div class="page">
      <div class="plots">
        <RatePlot
          label="Packets per second"
          history={historyOf(props.capture.name)}
          of={(sample) => sample.packetsPerSecond}
          text={packetRate}
        />
        <RatePlot
          label="Bits per second"
          history={historyOf(props.capture.name)}
          of={(sample) => sample.bitsPerSecond}
          text={(value) => rate(value, "b/s")}
        />
      </div>
      <Show when={props.capture.error}>
        <p class="bad">{props.capture.error}</p>
      </Show>
      <Losses capture={props.capture} />
      <div class="columns">
        <section>
          <h2>Packets</h2>
          <Facts
            items={[
              ["seen", count(status().packets.seen)],
              ["stored", count(status().packets.stored)],
              status().packets.excluded > 0
                ? ["of pcapfs itself, left out", count(status().packets.excluded)]
                : null,
              ["kept in the ring", count(status().packets.retained)],
              ["overwritten", count(status().packets.overwritten)],
            ]}
          />
        </section>
        <section>
          <h2>Ring</h2>
          <Facts
            items={[
              ["size", bytes(status().ring.size_bytes)],
              ["in use", <RingUse capture={props.capture} />],
              ["covers", duration(ringSpan(props.capture))],
              ["oldest", dateAndClock(microseconds(status().ring.oldest))],
              ["newest", dateAndClock(microseconds(status().ring.newest))],
            ]}
          />
        </section>
        <section>
          <h2>Flows</h2>
          <Facts
            items={[
              ["open", count(status().flows.open)],
              ["closed", count(status().flows.closed)],
              ["evicted", count(status().flows.evicted)],
              ["gaps in streams", count(status().flows.gaps)],
              ["packets in no flow", count(status().flows.undecodable)],
              ["memory", bytes(status().flows.memory_bytes)],
            ]}
          />
        </section>
        <section>
          <h2>Capture</h2>
          <Facts
            items={[
              ["source", <span class="mono">{props.capture.source}</span>],
              ["filter", props.capture.filter ? <span class="mono">{props.capture.filter}</span> : "none"],
              ["started", dateAndClock(microseconds(status().started))],
              ["link type", status().linktype ?? "not known yet"],
              ["snap length", bytes(status().snaplen)],
              ["access", <span class="mono">{`${status().owner}:${status().group} ${status().mode}`}</span>],
            ]}
          />
        </section>
      </div>
      <Readers capture={props.capture} />
    </div>
  );
}

function RingUse(props: { capture: Capture }): JSX.Element {
  const share = (): number => {
    const { used, segments } = props.capture.status.ring;
    return segments > 0 ? used / segments : 0;
  };
  return (
    <>
      {bytes(props.capture.status.bytes.retained)}{" "}
      <meter class="meter" min="0" max="1" value={share()} aria-label="Share of the ring in use">
        {(share() * 100).toFixed(0)} %
      </meter>
    </>
  );
}

/** The packets and lines that are missing, and why. */
function Losses(props: { capture: Capture }): JSX.Element {
  const losses = (): readonly (readonly [number, string, string])[] => {
    const { readers, flows } = props.capture.status;
    const all: [number, string, string][] = dropCauses(props.capture).map(({ packets, what, why }) => [
      packets,
      plural(packets, "packet") + ` dropped (${what})`,
      why,
    ]);
    all.push([
      readers.lost_packets,
      `${plural(readers.lost_packets, "packet")} lost by readers`,
      "They were overwritten before a reader had read them; the capture has kept up.",
    ]);
    all.push([
      flows.engine_lost_packets,
      `${plural(flows.engine_lost_packets, "packet")} in no flow`,
      "They were overwritten before they were put into flows.",
    ]);
    all.push([
      flows.log_lines_dropped,
      `${plural(flows.log_lines_dropped, "line")} no longer listed`,
      "The lists of flows and transactions have a bound; the oldest lines left.",
    ]);
    return all.filter(([many]) => many > 0);
  };
  return (
    <Show when={losses().length > 0}>
      <section class="losses">
        <h2 class="bad">Missing</h2>
        <ul>
          <For each={losses()}>
            {([, what, why]) => (
              <li>
                <strong class="bad">{what}</strong> <span>{why}</span>
              </li>
            )}
          </For>
        </ul>
      </section>
    </Show>
  );
}

function Readers(props: { capture: Capture }): JSX.Element {
  const [beat, setBeat] = createSignal(0);
  const [readers] = createResource(
    () => [props.capture.name, beat()] as const,
    ([name]) => listReaders(name).catch((): Reader[] | null => null),
  );
  const timer = window.setInterval(() => {
    if (!document.hidden && stream().is === "open") setBeat((beats) => beats + 1);
  }, READERS_INTERVAL);
  onCleanup(() => window.clearInterval(timer));
  // A reader that opens or closes is a change of the counters: it is shown at once.
  createEffect(
    on(
      () => (counted(), props.capture.status.readers.open),
      (now, before) => {
        if (before !== undefined && now !== before) setBeat((beats) => beats + 1);
      },
    ),
  );
  const list = (): readonly Reader[] => readers.latest ?? [];
  return (
    <section>
      <h2>
        Readers <span class="muted">{count(list().length)}</span>
      </h2>
      <Show when={list().length > 0} fallback={<p class="muted">Nobody reads this capture now.</p>}>
        <div class="scroll-x">
          <table class="plain">
            <thead>
              <tr>
                <th scope="col">Program</th>
                <th scope="col">File</th>
                <th scope="col" class="end">
                  User
                </th>
                <th scope="col" class="end">
                  Open for
                </th>
                <th scope="col" class="end">
                  Delivered
                </th>
                <th scope="col" class="end">
                  Behind
                </th>
                <th scope="col" class="end">
                  Lost
                </th>
                <th scope="col">Now</th>
              </tr>
            </thead>
            <tbody>
              <For each={list()}>
                {(reader) => <ReaderRow reader={reader} kept={props.capture.status.packets.retained} />}
              </For>
            </tbody>
          </table>
        </div>
      </Show>
    </section>
  );
}

function ReaderRow(props: { reader: Reader; kept: number }): JSX.Element {
  const reader = (): Reader => props.reader;
  const opened = (): number | null => microseconds(reader().opened);
  // Half of the ring unread: it may be overtaken soon.
  const late = (): boolean => reader().lag_packets > 1000 && reader().lag_packets > props.kept / 2;
  return (
    <tr>
      <td>
        {reader().comm} <span class="muted">{reader().pid}</span>
      </td>
      <td class="mono">{reader().file}</td>
      <td class="end number">{reader().uid}</td>
      <td class="end number">
        {opened() === null ? "–" : duration(Math.max(0, Date.now() * 1000 - (opened() ?? 0)))}
      </td>
      <td class="end number">
        {count(reader().delivered_packets)} <span class="muted">{bytes(reader().delivered_bytes)}</span>
      </td>
      <td class="end number" classList={{ warn: late() }}>
        {count(reader().lag_packets)}
      </td>
      <td class="end number" classList={{ bad: reader().lost_packets > 0 }}>
        {count(reader().lost_packets)}
      </td>
      <td class="muted">
        {reader().blocked ? "waits for packets" : reader().lag_packets > 0 ? "is behind" : "reads"}
      </td>
    </tr>
  );
}
