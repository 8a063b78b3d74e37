// The page's knowledge of the server: the captures, the lists of the capture that is open, and whether
// the server answers. It has one event stream, which follows the route.

import { createEffect, createMemo, createRoot, createSignal, on, onCleanup } from "solid-js";
import type { ServerEvent } from "../api/event_parser.ts";
import { EventStream, type StreamState } from "../api/event_stream.ts";
import { findCapture, listCaptures, RequestError } from "../api/request.ts";
import type { Capture } from "../api/types.ts";
import { RateHistory } from "../data/history.ts";
import { captureEventsUrl, openLists, type CaptureLists } from "./capture_lists.ts";
import { route } from "./route.ts";

/** Milliseconds between two requests for the list of captures: events do not say which have left. */
const LIST_INTERVAL = 15_000;

const [captures, setCaptures] = createSignal<readonly Capture[]>([]);
const [listed, setListed] = createSignal(false);
const [stream, setStream] = createSignal<StreamState>({ is: "connecting" });
const [failure, setFailure] = createSignal<RequestError | null>(null);
const [daemonFailure, setDaemonFailure] = createSignal<string | null>(null);
const [lists, setLists] = createSignal<CaptureLists | null>(null);
const [beat, setBeat] = createSignal(0);
const histories = new Map<string, RateHistory>();
let connection: EventStream | null = null;

export { captures, lists, stream, failure };

/** Why the server has no daemon to ask; `null` if it has. */
export { daemonFailure };

/** Whether the server has answered once. */
export const isListed = listed;

/** Changes each time that counters came. */
export const counted = beat;

/** The capture that is open, if the server has it. */
export const openCapture = createRoot(() =>
  createMemo(() => {
    const name = route().capture;
    return captures().find((one) => one.name === name || one.aliases.includes(name ?? "")) ?? null;
  }),
);

export function historyOf(name: string): RateHistory {
  let history = histories.get(name);
  if (!history) histories.set(name, (history = new RateHistory()));
  return history;
}

/** Asks the server again, now. */
export function retry(): void {
  connection?.retry();
  void refresh();
}

function count(capture: Capture): void {
  historyOf(capture.name).add(capture, performance.now());
}

function take(capture: Capture): void {
  count(capture);
  setCaptures((all) => {
    const at = all.findIndex((one) => one.name === capture.name);
    return at < 0 ? [...all, capture] : all.with(at, capture);
  });
  setBeat((beats) => beats + 1);
}

/** Asks for all captures. */
export async function refresh(): Promise<void> {
  try {
    const all = await listCaptures();
    setCaptures(all);
    for (const capture of all) count(capture);
    for (const name of histories.keys()) {
      if (!all.some((one) => one.name === name)) histories.delete(name);
    }
    setListed(true);
    setFailure(null);
    setBeat((beats) => beats + 1);
  } catch (error) {
    setFailure(error instanceof RequestError ? error : new RequestError(0, String(error)));
  }
}

/** Asks for one capture, as after it was started. */
export async function refreshCapture(name: string): Promise<void> {
  take(await findCapture(name));
}

/** The data of the event `daemon`: the daemon went away or came back. */
interface DaemonEvent {
  state: "up" | "down";
  /** Flows are numbered from 1 again. */
  restarted: boolean;
  error: string | null;
}

function takeDaemon({ state, restarted, error }: DaemonEvent): void {
  setDaemonFailure(state === "down" ? (error ?? "the daemon does not answer") : null);
  if (state === "down") for (const history of histories.values()) history.interrupt(performance.now());
  else void refresh();
  const name = route().capture;
  if (restarted && name !== null) reload(name);
}

function onEvent(event: ServerEvent): void {
  const open = lists();
  switch (event.type) {
    case "counters":
      take(JSON.parse(event.data) as Capture);
      break;
    case "flow":
      open?.flows.take(event.data);
      break;
    case "http":
      open?.http.take(event.data);
      break;
    case "daemon":
      takeDaemon(JSON.parse(event.data) as DaemonEvent);
      break;
    case "lost": {
      const { what, lines } = JSON.parse(event.data) as { what: string; lines: number };
      if (what === "flows") open?.flows.miss(lines);
      if (what === "http") open?.http.miss(lines);
      break;
    }
  }
}

/** Begins the lists of a capture anew; they load when they are shown. */
export function reload(name: string): void {
  const [before, next] = [lists(), openLists(name)];
  before?.flows.close();
  before?.http.close();
  if (before?.name === name) {
    next.flows.sort(before.flows.order());
    next.http.sort(before.http.order());
  }
  setLists(next);
}

function onState(state: StreamState): void {
  setStream(state);
  if (state.is === "open") {
    // It says so again if the daemon is away.
    setDaemonFailure(null);
    void refresh();
    const name = route().capture;
    const open = lists();
    const isWhole = open?.name === name && state.resumed && !open?.flows.error() && !open?.http.error();
    // Lines from before the stream are in the pages.
    if (name !== null && !isWhole) reload(name);
  } else if (state.is !== "connecting") {
    for (const history of histories.values()) history.interrupt(performance.now());
  }
}

/** Follows the route; to be called once, in a root. */
export function startSession(): void {
  // A memo, as a change of the filter is a change of the route too.
  const wanted = createMemo(() => route().capture);
  createEffect(
    on(wanted, (name) => {
      for (const history of histories.values()) history.interrupt(performance.now());
      if (lists()?.name !== name) {
        lists()?.flows.close();
        lists()?.http.close();
        setLists(null);
      }
      connection = new EventStream(
        name === null ? "/api/v1/events" : captureEventsUrl(name),
        onEvent,
        onState,
      );
      const own = connection;
      onCleanup(() => own.close());
    }),
  );
  // A capture that was started again numbers its flows from 1.
  const session = createMemo(() => {
    const capture = openCapture();
    return capture && `${capture.name} ${capture.status.id} ${capture.status.started}`;
  });
  createEffect(
    on(session, (now, before) => {
      const name = route().capture;
      if (now && before && name !== null && now.startsWith(`${name} `) && before.startsWith(`${name} `))
        reload(name);
    }),
  );
  createEffect(() => {
    const { tab } = route();
    if (tab !== "overview") lists()?.[tab].start();
  });
  const timer = window.setInterval(() => {
    if (!document.hidden) void refresh();
  }, LIST_INTERVAL);
  onCleanup(() => window.clearInterval(timer));
  void refresh();
}
