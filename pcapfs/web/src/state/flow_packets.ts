// The packets of a flow, as far as they are loaded.

import { createEffect, createSignal, on, onCleanup, type Accessor } from "solid-js";
import { listPackets } from "../api/request.ts";
import { timelinePacket, type TimelinePacket } from "../data/timeline.ts";

/** Packets that the page asks for at once. */
const PAGE_SIZE = 5000;
/** Packets of a flow that the page keeps. */
export const MAX_PACKETS = 50_000;
/** Milliseconds that a selection must last before packets are asked for. */
const SETTLE = 60;
/** Milliseconds until the packets of a flow that goes on are asked for again. */
const REFRESH = 1000;

export interface FlowOfPackets {
  capture: string;
  flow: number;
  /** Packets that the flow has by its newest line; `null` if the list does not have it. */
  packets: number | null;
}

export interface FlowPackets {
  /** In the order of their times. */
  packets: Accessor<readonly TimelinePacket[]>;
  state: Accessor<"loading" | "all" | "more" | { error: string }>;
  /** Why packets are missing, for people. */
  why: Accessor<string | null>;
  /** Loads the page after those that are there, or the first one again. */
  load: (again: boolean) => Promise<void>;
}

export function createFlowPackets(flow: FlowOfPackets): FlowPackets {
  const [packets, setPackets] = createSignal<readonly TimelinePacket[]>([]);
  const [cursor, setCursor] = createSignal<string | number | null>(null);
  const [state, setState] = createSignal<"loading" | "all" | "more" | { error: string }>("loading");
  const [why, setWhy] = createSignal<string | null>(null);
  let stop = new AbortController();

  const load = async (again: boolean): Promise<void> => {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    try {
      const after = again ? null : cursor();
      const page = await listPackets(flow.capture, flow.flow, after, PAGE_SIZE, signal);
      const found = page.packets.map(timelinePacket);
      setPackets([...(again ? [] : packets()), ...found].sort((a, b) => a.at - b.at));
      setCursor(page.next);
      setWhy(page.why ?? null);
      setState(page.next === null ? "all" : "more");
    } catch (error) {
      if (!signal.aborted) setState({ error: error instanceof Error ? error.message : String(error) });
    }
  };
  const begin = (): void => {
    setPackets([]);
    setCursor(null);
    setState("loading");
    setWhy(null);
    const timer = window.setTimeout(() => void load(true), SETTLE);
    onCleanup(() => (window.clearTimeout(timer), stop.abort()));
  };
  createEffect(on(() => [flow.capture, flow.flow] as const, begin));
  // The flow goes on. A long one is loaded on demand only.
  const goOn = (now: number | null): void => {
    const have = packets().length;
    if (now === null || state() !== "all" || now <= have || have > PAGE_SIZE) return;
    const timer = window.setTimeout(() => void load(true), REFRESH);
    onCleanup(() => window.clearTimeout(timer));
  };
  createEffect(on(() => flow.packets, goOn));
  return { packets, state, why, load };
}
