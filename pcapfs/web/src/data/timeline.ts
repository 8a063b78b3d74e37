// The places of a flow's packets in their drawing. Time runs to the right. Packets of the client rise
// from the middle, packets of the server hang from it. The height is the payload on a logarithmic scale.

import type { FlowPacket } from "../api/types.ts";
import { microseconds } from "../format.ts";
import type { Span } from "./waterfall.ts";

export interface TimelinePacket {
  packet: FlowPacket;
  /** Microseconds since the Unix epoch. */
  at: number;
  /** From 0, without payload, to 1. */
  height: number;
}

/** Bytes of payload that have the full height: segments that a card has merged reach it. */
const FULL_PAYLOAD = 65_536;

export function timelinePacket(packet: FlowPacket): TimelinePacket {
  const height = packet.payload <= 0 ? 0 : Math.log2(1 + packet.payload) / Math.log2(1 + FULL_PAYLOAD);
  return { packet, at: microseconds(packet.time) ?? 0, height: Math.min(1, height) };
}

/** All of it, with a little room, so that the first and the last packet are not at the edge. */
export function wholeSpan(packets: readonly TimelinePacket[]): Span {
  let [from, to] = [Infinity, -Infinity];
  for (const { at } of packets) {
    from = Math.min(from, at);
    to = Math.max(to, at);
  }
  if (from > to) return { from: 0, to: 1 };
  const room = Math.max(1, (to - from) * 0.025);
  return { from: from - room, to: to + room };
}

/** Microseconds that the view shows at least. */
const NARROWEST = 10;

/** A view made narrower or wider around `center`, and kept within the whole. */
export function zoom(view: Span, whole: Span, center: number, factor: number): Span {
  const width = Math.min(whole.to - whole.from, Math.max(NARROWEST, (view.to - view.from) * factor));
  const share = (center - view.from) / Math.max(1e-9, view.to - view.from);
  return within(center - share * width, width, whole);
}

/** A view moved by a share of its width, and kept within the whole. */
export function pan(view: Span, whole: Span, share: number): Span {
  const width = view.to - view.from;
  return within(view.from + share * width, width, whole);
}

function within(from: number, width: number, whole: Span): Span {
  const start = Math.max(whole.from, Math.min(from, whole.to - width));
  return { from: start, to: Math.min(whole.to, start + width) };
}

/** The packet that is nearest in time; packets are sorted by time. `-1` without packets. */
export function nearest(packets: readonly TimelinePacket[], at: number): number {
  let [low, high] = [0, packets.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((packets[middle] as TimelinePacket).at < at) low = middle + 1;
    else high = middle;
  }
  const [before, after] = [packets[low - 1], packets[low]];
  if (!before) return after ? low : -1;
  if (!after) return low - 1;
  return at - before.at <= after.at - at ? low - 1 : low;
}

const FLAG_NAMES: Readonly<Record<string, string>> = {
  S: "SYN",
  A: "ACK",
  F: "FIN",
  R: "RST",
  P: "PSH",
  U: "URG",
  E: "ECE",
  C: "CWR",
};

/** `SYN ACK` of `SA`. */
export const flagNames = (flags: string | null): string =>
  [...(flags ?? "")].map((flag) => FLAG_NAMES[flag] ?? flag).join(" ");

/** The notes of packets, for people. */
export const NOTES: Readonly<Record<string, string>> = {
  retransmission: "sent again",
  out_of_order: "out of order",
  gap_before: "bytes before it are missing",
};
