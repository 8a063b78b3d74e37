// The frame around the views: the bar at the top, what is wrong with the connection, the keys.

import { createEffect, createSignal, For, Match, onCleanup, Show, Switch, type JSX } from "solid-js";
import type { Capture } from "../api/types.ts";
import { droppedPackets } from "../data/history.ts";
import { count, packetRate, plural, rate } from "../format.ts";
import { nextTheme, theme } from "../state/preferences.ts";
import { go, refine, route, TABS, type CaptureTab, type Route } from "../state/route.ts";
import {
  captures,
  daemonFailure,
  failure,
  isListed,
  lists,
  openCapture,
  retry,
  stream,
} from "../state/session.ts";
import { focusFilter, listenForKeys, moveInList, type KeyAction } from "../ui/keyboard.ts";
import { StateMark, Tabs } from "../ui/parts.tsx";
import { CapturesView } from "./captures.tsx";
import { ControlButton } from "./control_button.tsx";
import { FlowsView } from "./flows.tsx";
import { HelpDialog } from "./help_dialog.tsx";
import { HttpView } from "./http.tsx";
import { Overview } from "./overview.tsx";
import { SaveDialog } from "./save_dialog.tsx";

const TAB_TITLES: Readonly<Record<CaptureTab, string>> = {
  overview: "Overview",
  flows: "Flows",
  http: "HTTP",
};

/** The filter and the selection of each tab, for when one comes back to it. */
const left = new Map<string, Route>();

function openTab(tab: CaptureTab): void {
  const now = route();
  if (now.capture === null || now.tab === tab) return;
  left.set(`${now.tab}/${now.capture}`, now);
  go(left.get(`${tab}/${now.capture}`) ?? { capture: now.capture, tab });
}

function nextCapture(step: number): void {
  const all = captures();
  const at = all.findIndex((one) => one.name === openCapture()?.name);
  const next = all[at < 0 ? 0 : (at + step + all.length) % all.length];
  if (next) go({ capture: next.name, tab: route().tab });
}

export function App(): JSX.Element {
  const [helps, setHelps] = createSignal(false);
  const actions: readonly KeyAction[] = [
    { keys: ["?"], what: "Show or hide this list", act: () => setHelps(true) },
    { keys: ["c"], what: "All captures", act: () => go({}) },
    { keys: ["["], what: "The capture before", act: () => nextCapture(-1) },
    { keys: ["]"], what: "The capture after", act: () => nextCapture(1) },
    { keys: ["1"], what: "Overview of the capture", act: () => openTab("overview") },
    { keys: ["2"], what: "Flows", act: () => openTab("flows") },
    { keys: ["3"], what: "HTTP transactions", act: () => openTab("http") },
    { keys: ["/"], what: "Filter", act: focusFilter },
    { keys: ["j", "ArrowDown"], what: "Next row", act: () => moveInList("ArrowDown") },
    { keys: ["k", "ArrowUp"], what: "Row before", act: () => moveInList("ArrowUp") },
    { keys: ["PageDown", "PageUp", "Home", "End"], what: "Through a list" },
    { keys: ["Escape"], what: "Close the details; leave the filter", act: () => refine({ item: null }) },
    {
      keys: ["h"],
      what: "Hold the list, and let it go on",
      act: () => document.querySelector<HTMLElement>("[data-action=hold]")?.click(),
    },
    { keys: ["+", "-"], what: "Zoom the timeline of a flow" },
    { keys: ["t"], what: "Colours: as the system, light, dark", act: nextTheme },
  ];
  listenForKeys(actions);
  createEffect(() => {
    const name = route().capture;
    document.title = name === null ? "pcapfs" : `${name} – pcapfs`;
  });
  return (
    <>
      <TopBar onHelp={() => setHelps(true)} />
      <ConnectionBanner />
      <Show when={route().capture !== null} fallback={<CapturesView />}>
        <Show when={openCapture()} fallback={<MissingCapture />}>
          {(capture) => <CaptureView capture={capture()} />}
        </Show>
      </Show>
      <Show when={helps()}>
        <HelpDialog actions={actions} onClose={() => setHelps(false)} />
      </Show>
    </>
  );
}

function MissingCapture(): JSX.Element {
  return (
    <Show when={isListed()}>
      <main class="blank">
        <p>{route().capture}: no such capture, or you may not read it.</p>
        <p>
          <a href="#/">All captures</a>
        </p>
      </main>
    </Show>
  );
}

function TopBar(props: { onHelp: () => void }): JSX.Element {
  return (
    <header class="top">
      <a href="#/" class="brand" aria-label="pcapfs, all captures">
        pcapfs
      </a>
      <nav class="crumbs" aria-label="Captures">
        <For each={captures().map((one) => one.name)}>
          {(name) => (
            <a
              href={`#/${encodeURIComponent(name)}`}
              class="crumb"
              aria-current={openCapture()?.name === name ? "page" : undefined}
            >
              {name}
            </a>
          )}
        </For>
      </nav>
      <span class={`link link-${stream().is}`} role="status">
        <span class="dot" aria-hidden="true" />
        {{ connecting: "connecting", open: "live", paused: "paused", lost: "no connection" }[stream().is]}
      </span>
      <button
        type="button"
        class="button"
        onClick={nextTheme}
        title="Colours (t)"
        aria-label={`Colours: ${theme()}`}
      >
        ◐ {theme() === "system" ? "auto" : theme()}
      </button>
      <button
        type="button"
        class="button"
        onClick={() => props.onHelp()}
        aria-label="Keys and help"
        title="Keys (?)"
      >
        ?
      </button>
    </header>
  );
}

function ConnectionBanner(): JSX.Element {
  const [now, setNow] = createSignal(Date.now());
  const [lost, setLost] = createSignal(false);
  createEffect(() => {
    const { is } = stream();
    if (is === "lost") setLost(true);
    if (is === "open") setLost(false);
  });
  const timer = window.setInterval(() => lost() && setNow(Date.now()), 500);
  onCleanup(() => window.clearInterval(timer));
  const why = () => {
    const state = stream();
    return (state.is === "lost" ? state.why : null) ?? failure();
  };
  const wait = (): string => {
    const state = stream();
    if (state.is !== "lost") return "Connecting…";
    return `Next attempt in ${Math.max(0, Math.ceil((state.retry - now()) / 1000))} s.`;
  };
  return (
    <Show when={lost() || failure() || daemonFailure() !== null}>
      <div class="banner" role="alert">
        <Switch
          fallback={
            <span>
              <strong>{why()?.message ?? "The server does not answer."}</strong> What is shown is from before.{" "}
              <Show when={lost()}>{wait()}</Show>
            </span>
          }
        >
          <Match when={why()?.status === 401}>
            <span>
              <strong>Not logged in.</strong> Open the address that <code>pcapfs web</code> has printed, with
              its token; a new one is printed when it is started again.
            </span>
          </Match>
          <Match when={!lost() && daemonFailure()}>
            <span>
              <strong>{daemonFailure()}</strong> What is shown is from before. The page goes on when the
              daemon is back.
            </span>
          </Match>
          <Match when={why()?.status === 403}>
            <span>
              <strong>Refused.</strong> {why()?.message}
            </span>
          </Match>
        </Switch>
        <button type="button" class="button" onClick={retry}>
          Try now
        </button>
      </div>
    </Show>
  );
}

function CaptureView(props: { capture: Capture }): JSX.Element {
  const [saves, setSaves] = createSignal(false);
  const note = (tab: CaptureTab): { note?: string } => {
    const list = tab === "overview" ? undefined : lists()?.[tab];
    return list?.started() ? { note: count(list.size()) } : {};
  };
  return (
    <main class="capture-view">
      <div class="capture-bar">
        <h1>{props.capture.name}</h1>
        <StateMark state={props.capture.state} />
        <span class="muted cut capture-source">
          {props.capture.source}{" "}
          <Show when={props.capture.filter}>
            <span class="mono">{props.capture.filter}</span>
          </Show>
        </span>
        <span class="number rate-now">{packetRate(props.capture.status.rate.packets_per_second)}</span>
        <span class="number rate-now">{rate(props.capture.status.rate.bits_per_second, "b/s")}</span>
        <Show when={droppedPackets(props.capture) > 0}>
          <a class="bad strong" href={`#/${encodeURIComponent(props.capture.name)}`}>
            {plural(droppedPackets(props.capture), "packet")} dropped
          </a>
        </Show>
        <span class="spring" />
        <button type="button" class="button" onClick={() => setSaves(true)}>
          Save packets…
        </button>
        <ControlButton capture={props.capture} />
      </div>
      <Tabs
        label="Views of the capture"
        current={route().tab}
        onChoose={(id) => openTab(id as CaptureTab)}
        items={TABS.map((id) => ({ id, title: TAB_TITLES[id], ...note(id) }))}
      />
      <div role="tabpanel" class="tab-panel" aria-label={TAB_TITLES[route().tab]}>
        <Switch>
          <Match when={route().tab === "overview"}>
            <Overview capture={props.capture} />
          </Match>
          <Match when={route().tab === "flows" && lists()}>
            {(open) => <FlowsView capture={props.capture.name} lists={open()} />}
          </Match>
          <Match when={route().tab === "http" && lists()}>
            {(open) => <HttpView capture={props.capture.name} lists={open()} />}
          </Match>
        </Switch>
      </div>
      <Show when={saves()}>
        <SaveDialog capture={props.capture.name} onClose={() => setSaves(false)} />
      </Show>
    </main>
  );
}
