// A rate over the last five minutes, which moves to the left as time passes. Drops are red marks at
// the foot of the time at which they were seen. Where the page knows nothing, nothing is drawn.

import { createMemo, createSignal, Show, type JSX } from "solid-js";
import {
  axisEnd,
  HISTORY_SECONDS,
  largestRate,
  sampleAt,
  type RateHistory,
  type RateSample,
} from "../data/history.ts";
import { count, plural } from "../format.ts";
import { counted } from "../state/session.ts";
import { drawOn, type Drawing } from "./canvas.ts";

export interface RatePlotProps {
  label: string;
  history: RateHistory;
  of: (sample: RateSample) => number;
  text: (value: number) => string;
  /** Without axis and numbers. */
  small?: boolean;
}

/** Milliseconds by which drawing lags, so that the sample at the right edge is there. */
const LAG = 1200;
const SPAN = HISTORY_SECONDS * 1000;

export function RatePlot(props: RatePlotProps): JSX.Element {
  let canvas!: HTMLCanvasElement;
  const [hover, setHover] = createSignal<number | null>(null);
  const now = createMemo(() => {
    counted();
    const last = props.history.samples.at(-1);
    return last && last.until === null ? props.of(last) : null;
  });
  drawOn(
    () => canvas,
    (drawing) => {
      counted();
      drawPlot(drawing, props, hover());
      // It moves by whole pixels: that is three times a second, not sixty.
    },
    (width) => Math.floor((performance.now() / SPAN) * Math.max(1, width)),
  );
  const label = (): string => `${props.label}: ${now() === null ? "unknown" : props.text(now() ?? 0)}`;
  return (
    <div class="plot" classList={{ small: props.small ?? false }}>
      <Show when={!props.small}>
        <div class="plot-head">
          <span class="plot-title">{props.label}</span>
          <span class="plot-now">{now() === null ? "–" : props.text(now() ?? 0)}</span>
        </div>
      </Show>
      <canvas
        ref={canvas}
        role="img"
        aria-label={label()}
        onPointerMove={(event) => setHover(props.small ? null : event.offsetX)}
        onPointerLeave={() => setHover(null)}
      />
    </div>
  );
}

function drawPlot(
  { context, width, height, color }: Drawing,
  props: RatePlotProps,
  hover: number | null,
): void {
  const right = performance.now() - LAG;
  const left = right - SPAN;
  const foot = props.small ? height - 3 : height - 16;
  const head = props.small ? 2 : 14;
  const samples = props.history.samples;
  const end = axisEnd(largestRate(samples, props.of));
  const x = (at: number): number => ((at - left) / SPAN) * width;
  const y = (value: number): number => foot - (value / end) * (foot - head);

  context.font = `11px ${color("--sans")}`;
  if (!props.small)
    drawAxis(context, {
      width,
      foot,
      head,
      end,
      text: props.text,
      line: color("--line"),
      ink: color("--muted"),
    });
  else {
    context.fillStyle = color("--line");
    context.fillRect(0, foot, width, 1);
  }
  context.beginPath();
  const area = new Path2D();
  for (const [at, sample] of samples.entries()) {
    const until = Math.min(sample.until ?? Infinity, samples[at + 1]?.at ?? Infinity, right);
    if (until <= left || sample.at >= right) continue;
    const [from, to, high] = [Math.max(0, x(sample.at)), x(until), y(props.of(sample))];
    area.rect(from, high, to - from, foot - high);
    const before = samples[at - 1];
    if (before && before.until === null && from > 0) context.lineTo(from, high);
    else context.moveTo(from, high);
    context.lineTo(to, high);
  }
  context.fillStyle = color("--plot-area");
  context.fill(area);
  context.strokeStyle = color("--plot-line");
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.stroke();
  context.fillStyle = color("--bad");
  const tall = props.small ? 3 : 6;
  for (const sample of samples) {
    if (sample.dropped > 0 && sample.at >= left)
      context.fillRect(Math.round(x(sample.at)) - 1, foot + 1 - tall, props.small ? 2 : 3, tall);
  }
  if (hover !== null)
    drawHover({ context, width, height, color }, props, {
      at: left + (hover / width) * SPAN,
      hover,
      foot,
      head,
    });
}

interface AxisLook {
  width: number;
  foot: number;
  head: number;
  end: number;
  text: (value: number) => string;
  line: string;
  ink: string;
}

function drawAxis(
  context: CanvasRenderingContext2D,
  { width, foot, head, end, text, line, ink }: AxisLook,
): void {
  context.strokeStyle = line;
  context.fillStyle = ink;
  context.lineWidth = 1;
  for (const level of [0, 0.5, 1]) {
    const y = Math.round(foot - level * (foot - head)) + 0.5;
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(width, y);
    context.stroke();
  }
  context.textAlign = "left";
  context.fillText(text(end), 0, head - 4);
  for (let minute = 1; minute < HISTORY_SECONDS / 60; minute++) {
    const x = width - ((minute * 60) / HISTORY_SECONDS) * width;
    context.textAlign = "center";
    context.fillText(`${minute} min ago`, x, foot + 13);
  }
  context.textAlign = "right";
  context.fillText("now", width, foot + 13);
}

interface HoverPlace {
  at: number;
  hover: number;
  foot: number;
  head: number;
}

function drawHover(
  { context, width, color }: Drawing,
  props: RatePlotProps,
  { at, hover, foot, head }: HoverPlace,
): void {
  context.strokeStyle = color("--muted");
  context.beginPath();
  context.moveTo(Math.round(hover) + 0.5, head);
  context.lineTo(Math.round(hover) + 0.5, foot);
  context.stroke();
  const sample = sampleAt(props.history.samples, at);
  const ago = Math.max(0, Math.round((performance.now() - at) / 1000));
  const drops = sample && sample.dropped > 0 ? `, ${plural(sample.dropped, "packet")} dropped` : "";
  const text = sample ? `${props.text(props.of(sample))}${drops}, ${count(ago)} s ago` : "not known";
  context.fillStyle = color("--ink");
  const wide = context.measureText(text).width;
  const onLeft = hover + wide + 8 > width;
  context.textAlign = "left";
  context.fillStyle = color("--paper");
  context.fillRect(onLeft ? hover - wide - 9 : hover + 3, head, wide + 6, 15);
  context.fillStyle = color(sample?.dropped ? "--bad" : "--ink");
  context.fillText(text, onLeft ? hover - wide - 6 : hover + 6, head + 11);
}
