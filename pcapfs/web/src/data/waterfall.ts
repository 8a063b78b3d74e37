// The places of the bars in the HTTP waterfall. A transaction has three phases, as in the network panel
// of a browser: the request is sent, the client waits, the response arrives.

/** Microseconds since the Unix epoch; `null` for what was not seen. */
export interface Phases {
  requestFirst: number | null;
  requestLast: number | null;
  responseFirst: number | null;
  responseLast: number | null;
}

/** A span of time in microseconds, `from <= to`. */
export interface Span {
  from: number;
  to: number;
}

export interface WaterfallBar {
  phase: "send" | "wait" | "receive";
  span: Span;
}

/** From the first to the last moment that was seen; `null` if nothing was. */
export function spanOf(phases: Phases): Span | null {
  const times = Object.values(phases).filter((time): time is number => time !== null);
  return times.length === 0 ? null : { from: Math.min(...times), to: Math.max(...times) };
}

/** The phases that were seen, in order; their spans may be empty, and do not overlap. */
export function bars({ requestFirst, requestLast, responseFirst, responseLast }: Phases): WaterfallBar[] {
  const found: WaterfallBar[] = [];
  const add = (phase: WaterfallBar["phase"], from: number | null, to: number | null): void => {
    if (from !== null && to !== null && from <= to) found.push({ phase, span: { from, to } });
  };
  add("send", requestFirst, requestLast);
  // A response may begin before the request ends; there is no wait then.
  add("wait", requestLast ?? requestFirst, responseFirst);
  add("receive", responseFirst, responseLast);
  return found;
}

/** The smallest span that has all of these. */
export function union(spans: Iterable<Span | null>): Span | null {
  let all: Span | null = null;
  for (const span of spans) {
    if (!span) continue;
    all = all ? { from: Math.min(all.from, span.from), to: Math.max(all.to, span.to) } : { ...span };
  }
  return all;
}

/** A place on an axis as a share of its width, from 0 to 1. */
export function place(time: number, axis: Span): number {
  const width = axis.to - axis.from;
  if (width <= 0) return 0;
  return Math.min(1, Math.max(0, (time - axis.from) / width));
}

/** Round distances from the beginning of a span of `width` microseconds, at most `most` of them. */
export function ticks(width: number, most: number): number[] {
  if (!(width > 0) || most < 1) return [];
  const rough = width / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough) ?? rough;
  const found: number[] = [];
  for (let tick = step; tick < width && found.length < most; tick += step) found.push(tick);
  return found;
}
