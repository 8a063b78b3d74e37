// The one event stream of a page. It closes while the page is hidden, since a browser has six
// connections for a server, and goes on at the event after the last. It returns by itself when the
// server was away.

import { EventParser, type ServerEvent } from "./event_parser.ts";
import { errorOf, RequestError } from "./request.ts";

export type StreamState =
  | { is: "connecting" }
  /** `resumed`: it goes on after the last event, so nothing is missing without a `lost` event. */
  | { is: "open"; resumed: boolean }
  /** The page is hidden. */
  | { is: "paused" }
  /** `retry` is when the next attempt begins, in milliseconds of `Date.now()`. */
  | { is: "lost"; why: RequestError; retry: number };

/** Milliseconds until the next attempt: the first, and the longest. */
const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;
/** Milliseconds of silence after which the server is gone: it sends a comment each 15 seconds. */
const LONGEST_SILENCE = 40_000;

export class EventStream {
  #url: string;
  #lastId = "";
  #stop: AbortController | null = null;
  #timer: number | undefined;
  #wait = FIRST_WAIT;
  #closed = false;

  constructor(
    url: string,
    private readonly onEvent: (event: ServerEvent) => void,
    private readonly onState: (state: StreamState) => void,
  ) {
    this.#url = url;
    document.addEventListener("visibilitychange", this.#look);
    this.#look();
  }

  close(): void {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#look);
    this.#end();
  }

  /** Tries at once, instead of when the wait is over. */
  retry(): void {
    if (this.#closed || this.#stop) return;
    this.#end();
    this.#wait = FIRST_WAIT;
    void this.#run();
  }

  #look = (): void => {
    if (document.hidden) {
      this.#end();
      this.onState({ is: "paused" });
    } else if (!this.#stop) {
      this.#end();
      void this.#run();
    }
  };

  #end(): void {
    this.#stop?.abort();
    this.#stop = null;
    window.clearTimeout(this.#timer);
  }

  async #run(): Promise<void> {
    const stop = new AbortController();
    this.#stop = stop;
    this.onState({ is: "connecting" });
    let why: RequestError;
    try {
      await this.#read(stop);
      why = new RequestError(0, "the server ended the stream of events");
    } catch (error) {
      why = error instanceof RequestError ? error : new RequestError(0, "the server is gone");
    }
    if (this.#stop !== stop) return;
    this.#stop = null;
    stop.abort();
    const retry = Date.now() + this.#wait;
    this.#timer = window.setTimeout(() => void this.#run(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT);
    this.onState({ is: "lost", why, retry });
  }

  async #read(stop: AbortController): Promise<void> {
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (this.#lastId !== "") headers["last-event-id"] = this.#lastId;
    let silence = window.setTimeout(() => stop.abort(), LONGEST_SILENCE);
    try {
      const response = await fetch(this.#url, { headers, signal: stop.signal, cache: "no-store" });
      if (!response.ok || !response.body) throw await errorOf(response);
      this.onState({ is: "open", resumed: this.#lastId !== "" });
      const parser = new EventParser(this.#lastId);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        // Another run took over while this one waited.
        if (done || this.#stop !== stop) return;
        window.clearTimeout(silence);
        silence = window.setTimeout(() => stop.abort(), LONGEST_SILENCE);
        this.#wait = FIRST_WAIT;
        for (const event of parser.push(value)) this.onEvent(event);
        this.#lastId = parser.lastId;
      }
    } finally {
      window.clearTimeout(silence);
    }
  }
}
