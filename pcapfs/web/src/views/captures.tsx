// The first view: all captures that the user may read.

import { Index, Show, type JSX } from "solid-js";
import type { Capture } from "../api/types.ts";
import { dropCauses, droppedPackets } from "../data/history.ts";
import { bytes, count, duration, microseconds, plural, rate, shortCount } from "../format.ts";
import { captures, historyOf, isListed } from "../state/session.ts";
import { go } from "../state/route.ts";
import { StateMark } from "../ui/parts.tsx";
import { RatePlot } from "../ui/rate_plot.tsx";
import { ControlButton } from "./control_button.tsx";

export function CapturesView(): JSX.Element {
  return (
    <main class="page">
      <h1 class="unseen">Captures</h1>
      <Show when={captures().length > 0} fallback={<NoCaptures />}>
        <table class="captures">
          <thead>
            <tr>
              <th scope="col">Capture</th>
              <th scope="col">State</th>
              <th scope="col" colspan="2">
                Packets/s
              </th>
              <th scope="col" colspan="2">
                Bits/s
              </th>
              <th scope="col" class="end" title="Packets that are in the ring, and the time they cover">
                Kept
              </th>
              <th scope="col" class="end" title="Packets of the network that are not in the capture">
                Dropped
              </th>
              <th scope="col" class="end" title="Programs that read savefiles now">
                Readers
              </th>
              <th scope="col">
                <span class="unseen">Start or stop</span>
              </th>
            </tr>
          </thead>
          <tbody>
            <Index each={captures()}>{(capture) => <CaptureRow capture={capture()} />}</Index>
          </tbody>
        </table>
      </Show>
    </main>
  );
}

function NoCaptures(): JSX.Element {
  return (
    <Show when={isListed()}>
      <div class="blank">
        <p>There are no captures that you may read.</p>
        <p class="muted">
          Make one with <code>pcapfs mount DIRECTORY SOURCE</code>, such as{" "}
          <code>pcapfs mount /mnt/net eth0</code>. It appears here.
        </p>
      </div>
    </Show>
  );
}

/** The time that the ring covers, in microseconds; `null` if it has no packets. */
export function ringSpan(capture: Capture): number | null {
  const [oldest, newest] = [
    microseconds(capture.status.ring.oldest),
    microseconds(capture.status.ring.newest),
  ];
  return oldest === null || newest === null ? null : Math.max(0, newest - oldest);
}

function CaptureRow(props: { capture: Capture }): JSX.Element {
  const status = (): Capture["status"] => props.capture.status;
  const href = (): string => `#/${encodeURIComponent(props.capture.name)}`;
  const open = (event: MouseEvent): void => {
    // The row is a larger target for the mouse; the link in it is what the keyboard reaches.
    if (!(event.target as Element).closest("a, button")) go({ capture: props.capture.name });
  };
  return (
    <tr class="capture" onClick={open}>
      <th scope="row">
        <a href={href()} class="capture-name">
          {props.capture.name}
        </a>
        <div class="muted cut" title={props.capture.filter ?? undefined}>
          {props.capture.source}
          <Show when={props.capture.filter}>
            <span class="mono filter-text"> {props.capture.filter}</span>
          </Show>
        </div>
      </th>
      <td>
        <StateMark state={props.capture.state} />
        <Show when={props.capture.error}>
          <div class="bad small-text cut" title={props.capture.error ?? ""}>
            {props.capture.error}
          </div>
        </Show>
      </td>
      <td class="end number rate-cell" data-label="Packets/s">
        {rate(status().rate.packets_per_second, "")}
      </td>
      <td class="plot-cell">
        <RatePlot
          small
          label="Packets per second"
          history={historyOf(props.capture.name)}
          of={(sample) => sample.packetsPerSecond}
          text={(value) => `${count(value)} packets/s`}
        />
      </td>
      <td class="end number rate-cell" data-label="Bits/s">
        {rate(status().rate.bits_per_second, "")}
      </td>
      <td class="plot-cell">
        <RatePlot
          small
          label="Bits per second"
          history={historyOf(props.capture.name)}
          of={(sample) => sample.bitsPerSecond}
          text={(value) => rate(value, "b/s")}
        />
      </td>
      <td class="end number" data-label="Kept">
        {shortCount(status().packets.retained)}
        <div class="muted">
          {duration(ringSpan(props.capture))}, {bytes(status().bytes.retained)}
        </div>
      </td>
      <td class="end number" data-label="Dropped">
        <Drops capture={props.capture} />
      </td>
      <td class="end number" data-label="Readers">
        {count(status().readers.open)}
        <Show when={status().readers.lost_packets > 0}>
          <div class="bad" title="Packets that readers did not get, as they were overtaken">
            {shortCount(status().readers.lost_packets)} lost
          </div>
        </Show>
      </td>
      <td class="end">
        <ControlButton capture={props.capture} />
      </td>
    </tr>
  );
}

function Drops(props: { capture: Capture }): JSX.Element {
  const causes = () => dropCauses(props.capture);
  return (
    <Show when={causes().length > 0} fallback={<span class="muted">0</span>}>
      <span class="bad strong" title={plural(droppedPackets(props.capture), "packet")}>
        {shortCount(droppedPackets(props.capture))}
      </span>
      <div
        class="bad"
        title={causes()
          .map((cause) => cause.why)
          .join("\n")}
      >
        {causes()
          .map((cause) => cause.what)
          .join(", ")}
      </div>
    </Show>
  );
}
