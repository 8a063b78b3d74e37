// The last minutes of a capture's rates and drops, as the plots show them.

import type { Capture } from "../api/types.ts";

/** Seconds that the plots show. */
export const HISTORY_SECONDS = 300;

export interface RateSample {
  /** Milliseconds of `performance.now()`. */
  at: number;
  packetsPerSecond: number;
  bitsPerSecond: number;
  /** Packets that were dropped since the sample before. */
  dropped: number;
  /** When the page stopped to know more; the rate holds until the next sample otherwise. */
  until: number | null;
}

/** A reason for which packets are missing, and how many it took. */
export interface DropCause {
  what: string;
  why: string;
  packets: number;
}

/** Why packets of the network are not in the capture; only causes that took some. */
export function dropCauses({ status: { packets } }: Capture): DropCause[] {
  return [
    {
      what: "kernel",
      why: "The kernel's buffer was full: the capture did not keep up.",
      packets: packets.dropped_kernel,
    },
    {
      what: "interface",
      why: "The interface or its driver dropped them.",
      packets: packets.dropped_interface,
    },
    {
      what: "oversize",
      why: "They are longer than a segment of the ring.",
      packets: packets.dropped_oversize,
    },
    {
      what: "remote",
      why: "The other machine's ring no longer had them when they were fetched.",
      packets: packets.lost_remote,
    },
  ].filter((cause) => cause.packets > 0);
}

/** Packets of the network that are not in the capture. */
export const droppedPackets = (capture: Capture): number =>
  dropCauses(capture).reduce((sum, cause) => sum + cause.packets, 0);

/** Samples of one capture, the oldest first. Bounded by the time they cover. */
export class RateHistory {
  #samples: RateSample[] = [];
  #dropped: number | null = null;
  #session = "";

  get samples(): readonly RateSample[] {
    return this.#samples;
  }

  /** Takes the newest counters. `at` in milliseconds of `performance.now()`. */
  add(capture: Capture, at: number): void {
    const { id, started, rate } = capture.status;
    const session = `${id}/${started}`;
    const dropped = droppedPackets(capture);
    // Another capture of the same name counts from 0.
    const known = session === this.#session ? this.#dropped : null;
    const running = capture.state === "running";
    this.#samples.push({
      at,
      packetsPerSecond: running ? rate.packets_per_second : 0,
      bitsPerSecond: running ? rate.bits_per_second : 0,
      dropped: known === null ? 0 : Math.max(0, dropped - known),
      until: null,
    });
    this.#session = session;
    this.#dropped = dropped;
    const oldest = at - (HISTORY_SECONDS + 5) * 1000;
    const first = this.#samples.findIndex((sample) => sample.at >= oldest);
    // The one before is kept, as a rate holds until the next sample.
    if (first > 1) this.#samples.splice(0, first - 1);
  }

  /** No counters come from now on until the next call of `add`. */
  interrupt(at: number): void {
    const last = this.#samples.at(-1);
    if (last) last.until ??= at;
  }
}

/** The largest rate that is shown. */
export function largestRate(samples: readonly RateSample[], of: (sample: RateSample) => number): number {
  return samples.reduce((most, sample) => Math.max(most, of(sample)), 0);
}

/** The sample that holds at a moment, in milliseconds of `performance.now()`. */
export function sampleAt(samples: readonly RateSample[], at: number): RateSample | null {
  const sample = samples.findLast((one) => one.at <= at);
  return sample && (sample.until === null || at < sample.until) ? sample : null;
}

/** The end of a vertical axis: the next 1, 2 or 5 times a power of ten that is not below `value`. */
export function axisEnd(value: number): number {
  if (!(value > 1)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= value) ?? value;
}
