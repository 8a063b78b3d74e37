// The packets of a flow, drawn in time and listed below. What is in the drawing is in the list too, so
// that nothing needs the drawing.

import { createEffect, createMemo, createSignal, on, Show, type JSX } from "solid-js";
import type { FlowPacket } from "../api/types.ts";
import { flagNames, nearest, NOTES, pan, wholeSpan, zoom, type TimelinePacket } from "../data/timeline.ts";
import { ticks, type Span } from "../data/waterfall.ts";
import { bytes, count, dateAndClock, duration, plural } from "../format.ts";
import { createFlowPackets, MAX_PACKETS, type FlowOfPackets } from "../state/flow_packets.ts";
import { drawOn, type Drawing } from "../ui/canvas.ts";
import { Grid, type GridColumn } from "../ui/grid.tsx";

export function FlowTimeline(props: FlowOfPackets): JSX.Element {
  const { packets, state, why, load } = createFlowPackets(props);
  const [selected, setSelected] = createSignal<number | null>(null);
  const [view, setView] = createSignal<Span | null>(null);
  const whole = createMemo(() => wholeSpan(packets()));
  createEffect(
    on(
      () => [props.capture, props.flow] as const,
      () => {
        setSelected(null);
        setView(null);
      },
    ),
  );
  const first = (): number => packets()[0]?.at ?? 0;
  const failed = (): string | null => {
    const now = state();
    return typeof now === "object" ? now.error : null;
  };
  return (
    <div class="timeline">
      <TimelineDrawing
        packets={packets()}
        whole={whole()}
        view={view() ?? whole()}
        onView={setView}
        selected={selected()}
        onSelect={setSelected}
      />
      <div class="timeline-bar">
        <Legend />
        <span class="timeline-tools">
          <span class="muted">{plural(packets().length, "packet")}</span>
          <Show when={why()}>
            <span class="warn">{why()}</span>
          </Show>
          <button type="button" class="button" disabled={view() === null} onClick={() => setView(null)}>
            Fit
          </button>
          <MorePackets many={packets().length} isMore={state() === "more"} onMore={() => void load(false)} />
        </span>
      </div>
      <Grid
        label="Packets of the flow"
        columns={columns(first)}
        rows={packets()}
        keyOf={(one) => one.packet.number}
        selected={selected()}
        onSelect={(one) => setSelected(one?.packet.number ?? null)}
        rowClass={(one) => (one.packet.note ? `note-${one.packet.note}` : "")}
        empty={
          failed() ??
          (state() === "loading" ? "Loading…" : "No packets of this flow are in the ring any more.")
        }
      />
    </div>
  );
}

function MorePackets(props: { many: number; isMore: boolean; onMore: () => void }): JSX.Element {
  return (
    <Show when={props.isMore}>
      <Show
        when={props.many < MAX_PACKETS}
        fallback={<span class="warn">The first {count(props.many)}; packets.pcap has all</span>}
      >
        <button type="button" class="button" onClick={() => props.onMore()}>
          More packets
        </button>
      </Show>
    </Show>
  );
}

const columns = (first: () => number): readonly GridColumn<TimelinePacket>[] => [
  {
    id: "at",
    title: "Time",
    width: 72,
    align: "end",
    cell: (one) => <span title={dateAndClock(one().at)}>{duration(one().at - first())}</span>,
  },
  {
    id: "direction",
    title: "From",
    width: 46,
    cell: (one) => <span class={`from-${one().packet.direction}`}>{one().packet.direction}</span>,
  },
  { id: "flags", title: "Flags", width: 84, cell: (one) => flagNames(one().packet.flags) },
  {
    id: "payload",
    title: "Payload",
    width: 58,
    align: "end",
    cell: (one) => (one().packet.payload > 0 ? count(one().packet.payload) : ""),
  },
  {
    id: "sequence",
    title: "Sequence",
    width: 84,
    align: "end",
    leaves: 2,
    cell: (one) => one().packet.sequence ?? "",
  },
  {
    id: "number",
    title: "Packet",
    width: 66,
    align: "end",
    leaves: 1,
    hint: "Number of the packet in packets.pcap",
    cell: (one) => <span class="muted">{one().packet.number}</span>,
  },
  {
    id: "note",
    title: "Note",
    width: 110,
    grow: 1,
    cell: (one) => <span title={NOTES[one().packet.note ?? ""]}>{NOTES[one().packet.note ?? ""] ?? ""}</span>,
  },
];

function Legend(): JSX.Element {
  return (
    <span class="legend" aria-hidden="true">
      <span class="key key-client">client</span>
      <span class="key key-server">server</span>
      <span class="key key-retransmission">sent again</span>
      <span class="key key-out_of_order">out of order</span>
      <span class="key key-gap_before">gap</span>
    </span>
  );
}

interface DrawingProps {
  packets: readonly TimelinePacket[];
  whole: Span;
  view: Span;
  onView: (view: Span) => void;
  selected: number | null;
  onSelect: (packet: number) => void;
}

function TimelineDrawing(props: DrawingProps): JSX.Element {
  let canvas!: HTMLCanvasElement;
  const [hover, setHover] = createSignal<number | null>(null);
  let dragged: number | null = null;
  let moved = false;
  drawOn(
    () => canvas,
    (drawing) => drawTimeline(drawing, props, hover()),
  );
  const timeAt = (x: number): number =>
    props.view.from + (x / Math.max(1, canvas.clientWidth)) * (props.view.to - props.view.from);
  const onWheel = (event: WheelEvent): void => {
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      props.onView(pan(props.view, props.whole, (event.deltaX || event.deltaY) / canvas.clientWidth));
    } else {
      props.onView(zoom(props.view, props.whole, timeAt(event.offsetX), event.deltaY > 0 ? 1.25 : 0.8));
    }
  };
  const onPointerMove = (event: PointerEvent): void => {
    setHover(event.offsetX);
    if (dragged === null) return;
    if (Math.abs(event.offsetX - dragged) > 3) moved = true;
    if (!moved) return;
    props.onView(pan(props.view, props.whole, (dragged - event.offsetX) / canvas.clientWidth));
    dragged = event.offsetX;
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const middle = (props.view.from + props.view.to) / 2;
    const at = props.packets.findIndex((one) => one.packet.number === props.selected);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      const next = props.packets[Math.min(props.packets.length - 1, Math.max(0, at + step))];
      if (next) props.onSelect(next.packet.number);
    } else if (event.key === "+" || event.key === "=")
      props.onView(zoom(props.view, props.whole, middle, 0.5));
    else if (event.key === "-") props.onView(zoom(props.view, props.whole, middle, 2));
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  const summary = (): string => {
    const notes = props.packets.filter((one) => one.packet.note !== null).length;
    return `${plural(props.packets.length, "packet")} in time, ${count(notes)} with a note. Arrow keys choose one, plus and minus zoom.`;
  };
  return (
    <canvas
      class="timeline-canvas"
      ref={canvas}
      role="img"
      aria-label={summary()}
      tabindex="0"
      on:wheel={{ handleEvent: onWheel, passive: false }}
      onKeyDown={onKeyDown}
      onPointerDown={(event) => {
        dragged = event.offsetX;
        moved = false;
        event.currentTarget.setPointerCapture(event.pointerId);
      }}
      onPointerUp={(event) => {
        dragged = null;
        const one = moved ? undefined : props.packets[nearest(props.packets, timeAt(event.offsetX))];
        if (one) props.onSelect(one.packet.number);
      }}
      onPointerMove={onPointerMove}
      onPointerLeave={() => setHover(null)}
    />
  );
}

/** Pixels at the foot for the axis. */
const AXIS = 16;

function drawTimeline(drawing: Drawing, props: DrawingProps, hover: number | null): void {
  const { context, width, height, color } = drawing;
  const middle = Math.round((height - AXIS) / 2);
  const { from, to } = props.view;
  const x = (at: number): number => ((at - from) / Math.max(1e-9, to - from)) * width;
  context.font = `11px ${color("--sans")}`;
  drawTimeAxis(drawing, props, x);
  context.fillStyle = color("--line-strong");
  context.fillRect(0, middle, width, 1);
  const inView = props.packets.filter((one) => one.at >= from && one.at <= to);
  const thick = inView.length < width / 8 ? 3 : 1.5;
  for (const one of inView) drawPacket(drawing, one, { x: x(one.at), middle, thick });
  const chosen = inView.find((one) => one.packet.number === props.selected);
  if (chosen) {
    context.fillStyle = color("--accent");
    context.fillRect(Math.round(x(chosen.at)) - 1, 0, 3, 3);
    context.globalAlpha = 0.25;
    context.fillRect(Math.round(x(chosen.at)) - 2, 0, 5, height - AXIS);
    context.globalAlpha = 1;
  }
  if (hover !== null && props.packets.length > 0) drawPacketHover(drawing, props, x, hover);
}

function drawTimeAxis(
  { context, width, height, color }: Drawing,
  { view, packets }: DrawingProps,
  x: (at: number) => number,
): void {
  const start = packets[0]?.at ?? view.from;
  const before = Math.max(0, view.from - start);
  context.textAlign = "left";
  for (const tick of ticks(view.to - view.from, Math.max(2, Math.floor(width / 90)))) {
    const at = Math.max(view.from, start) + tick;
    const place = Math.round(x(at)) + 0.5;
    context.fillStyle = color("--line");
    context.fillRect(place, 0, 1, height - AXIS);
    context.fillStyle = color("--muted");
    context.fillText(`+${duration(before + tick)}`, place + 3, height - 4);
  }
}

interface PacketPlace {
  x: number;
  /** The line between what the client and what the server sends. */
  middle: number;
  /** Pixels; few packets are drawn thick. */
  thick: number;
}

function drawPacket(
  { context, height, color }: Drawing,
  { packet, height: share }: TimelinePacket,
  { x, middle, thick }: PacketPlace,
): void {
  const tall = 4 + share * ((height - AXIS) / 2 - 14);
  const isClient = packet.direction === "client";
  const name = packet.note === null ? `--${packet.direction}` : `--${packet.note.replaceAll("_", "-")}`;
  context.fillStyle = color(name);
  const wide = packet.note ? Math.max(2.5, thick) : thick;
  context.fillRect(Math.round(x) - wide / 2, isClient ? middle - tall : middle + 1, wide, tall);
  if (packet.note === "gap_before") {
    context.beginPath();
    context.moveTo(x - 5, isClient ? 0 : height - AXIS);
    context.lineTo(x + 5, isClient ? 0 : height - AXIS);
    context.lineTo(x, isClient ? 7 : height - AXIS - 7);
    context.fill();
  }
  // A connection begins and ends with these; the letters stay readable when there are few.
  const mark = /[SFR]/.exec(packet.flags ?? "")?.[0];
  if (mark) {
    context.textAlign = "center";
    context.fillText(mark, x, isClient ? middle - tall - 3 : middle + tall + 11);
  }
}

function drawPacketHover(
  { context, width, color }: Drawing,
  props: DrawingProps,
  x: (at: number) => number,
  hover: number,
): void {
  const at = props.view.from + (hover / width) * (props.view.to - props.view.from);
  const one = props.packets[nearest(props.packets, at)];
  if (!one) return;
  const { packet } = one;
  const text = describe(packet, one.at - (props.packets[0]?.at ?? 0));
  const wide = context.measureText(text).width + 8;
  const place = Math.min(Math.max(0, x(one.at) - wide / 2), Math.max(0, width - wide));
  context.fillStyle = color("--raised");
  context.fillRect(place, 0, wide, 16);
  context.fillStyle = color("--ink");
  context.textAlign = "left";
  context.fillText(text, place + 4, 12);
}

function describe(packet: FlowPacket, since: number): string {
  return [
    `+${duration(since)}`,
    packet.direction,
    flagNames(packet.flags),
    packet.payload > 0 ? bytes(packet.payload) : "",
    NOTES[packet.note ?? ""] ?? "",
  ]
    .filter(Boolean)
    .join("  ");
}
