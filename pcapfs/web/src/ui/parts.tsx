// Small parts that several views have.

import { createSignal, For, onCleanup, onMount, Show, type JSX } from "solid-js";
import type { CaptureState } from "../api/types.ts";
import { keptNumber } from "../state/preferences.ts";

/** A state as a dot and a word; the colour alone says nothing. */
export function StateMark(props: { state: CaptureState }): JSX.Element {
  return (
    <span class={`state state-${props.state}`}>
      <span class="dot" aria-hidden="true" />
      {props.state}
    </span>
  );
}

export interface TabItem {
  id: string;
  title: string;
  note?: string;
}

/** Tabs as of the ARIA practices: the arrow keys choose among them. */
export function Tabs(props: {
  label: string;
  items: readonly TabItem[];
  current: string;
  onChoose: (id: string) => void;
}): JSX.Element {
  const move = (event: KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const at = props.items.findIndex((one) => one.id === props.current);
    const next = props.items[(at + step + props.items.length) % props.items.length];
    if (!next) return;
    props.onChoose(next.id);
    const list = event.currentTarget as HTMLElement;
    queueMicrotask(() => list.querySelector<HTMLElement>("[aria-selected=true]")?.focus());
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="tabs" role="tablist" aria-label={props.label} onKeyDown={move}>
      <For each={props.items}>
        {(item) => (
          <button
            type="button"
            role="tab"
            class="tab"
            aria-selected={item.id === props.current}
            tabindex={item.id === props.current ? 0 : -1}
            onClick={() => props.onChoose(item.id)}
          >
            {item.title}
            <Show when={item.note}>
              <span class="tab-note">{item.note}</span>
            </Show>
          </button>
        )}
      </For>
    </div>
  );
}

/** Copies a text and says so. */
export function CopyButton(props: {
  text: () => string | Promise<string>;
  children: JSX.Element;
  title?: string;
}): JSX.Element {
  const [said, setSaid] = createSignal<string | null>(null);
  let timer: number | undefined;
  onCleanup(() => window.clearTimeout(timer));
  const copy = async (): Promise<void> => {
    try {
      await copyText(await props.text());
      setSaid("Copied");
    } catch (error) {
      setSaid(error instanceof Error ? error.message : "Not copied");
    }
    window.clearTimeout(timer);
    timer = window.setTimeout(() => setSaid(null), 2500);
  };
  return (
    <button type="button" class="button" title={props.title} onClick={() => void copy()}>
      {said() ?? props.children}
      <span class="unseen" role="status">
        {said()}
      </span>
    </button>
  );
}

/** The clipboard is only there in a secure context, such as loopback or TLS. */
async function copyText(text: string): Promise<void> {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("The browser refuses to copy");
}

/** Pixels of the part that the divider leaves for the list at least. */
const NARROWEST_PART = 240;

/** A list, and beside it or below it what is selected in it. */
export function Split(props: {
  name: string;
  open: boolean;
  list: JSX.Element;
  detail: JSX.Element;
}): JSX.Element {
  let box!: HTMLDivElement;
  const [size, setSize] = keptNumber(`split.${props.name}`, 480);
  const [below, setBelow] = createSignal(false);
  onMount(() => {
    const narrow = window.matchMedia("(max-width: 1000px)");
    const look = (): void => void setBelow(narrow.matches);
    look();
    narrow.addEventListener("change", look);
    onCleanup(() => narrow.removeEventListener("change", look));
  });
  const limit = (wanted: number): number => {
    const all = below() ? box.clientHeight : box.clientWidth;
    return Math.max(NARROWEST_PART, Math.min(wanted, all - NARROWEST_PART));
  };
  const drag = (event: PointerEvent): void => {
    if (!(event.currentTarget as HTMLElement).hasPointerCapture(event.pointerId)) return;
    const edge = box.getBoundingClientRect();
    setSize(limit(below() ? edge.bottom - event.clientY : edge.right - event.clientX));
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const step = { ArrowLeft: 20, ArrowUp: 20, ArrowRight: -20, ArrowDown: -20 }[event.key];
    if (step === undefined) return;
    setSize(limit(size() + step));
    event.preventDefault();
  };
  return (
    <div
      class="split"
      classList={{ below: below(), open: props.open }}
      ref={box}
      style={{ "--detail": `${size()}px` }}
    >
      <div class="split-list">{props.list}</div>
      <Show when={props.open}>
        <div
          class="divider"
          role="separator"
          tabindex="0"
          aria-label="Size of the details"
          aria-orientation={below() ? "horizontal" : "vertical"}
          aria-valuenow={size()}
          onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
          onPointerMove={drag}
          onKeyDown={onKeyDown}
        />
        <div class="split-detail">{props.detail}</div>
      </Show>
    </div>
  );
}

/** The filter of a list. */
export function FilterField(props: {
  value: string;
  onInput: (value: string) => void;
  placeholder: string;
  help: string;
  unknown: string | null;
}): JSX.Element {
  return (
    <div class="filter">
      <input
        type="search"
        class="filter-input"
        value={props.value}
        placeholder={props.placeholder}
        aria-label="Filter"
        aria-describedby="filter-help"
        spellcheck={false}
        autocomplete="off"
        title={props.help}
        onInput={(event) => props.onInput(event.currentTarget.value)}
      />
      <span id="filter-help" class="unseen">
        {props.help}
      </span>
      <Show when={props.unknown}>
        {(name) => (
          <span class="warn" role="status">
            {name()}: is no field; searched as text
          </span>
        )}
      </Show>
    </div>
  );
}

/** A list of names and values. */
export function Facts(props: {
  items: readonly (readonly [name: string, value: JSX.Element] | null)[];
}): JSX.Element {
  return (
    <dl class="facts">
      <For each={props.items.filter((item) => item !== null)}>
        {([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        )}
      </For>
    </dl>
  );
}
