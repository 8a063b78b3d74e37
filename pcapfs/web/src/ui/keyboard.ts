// The keys that work everywhere in the page, unless one types into a field. The list is what `?` shows.

import { onCleanup } from "solid-js";

export interface KeyAction {
  keys: readonly string[];
  what: string;
  /** Keys that an element handles by itself have none. */
  act?: () => void;
}

const FIELDS = "input, textarea, select, [contenteditable]";

export function listenForKeys(actions: readonly KeyAction[]): void {
  const onKeyDown = (event: KeyboardEvent): void => {
    // Those that `moveInList` makes are for the list only.
    if (!event.isTrusted || event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    const target = event.target instanceof Element ? event.target : null;
    if (document.querySelector("dialog[open]")) return;
    if (target?.matches(FIELDS)) {
      if (event.key === "Escape") focusList();
      return;
    }
    const action = actions.find((one) => one.act && one.keys.includes(event.key));
    if (!action?.act) return;
    event.preventDefault();
    action.act();
  };
  window.addEventListener("keydown", onKeyDown);
  onCleanup(() => window.removeEventListener("keydown", onKeyDown));
}

/** Puts the keyboard into the list of the view. */
export function focusList(): HTMLElement | null {
  const list = document.querySelector<HTMLElement>(".split-list .grid");
  list?.focus();
  return list;
}

/** Moves in the list, also when the keyboard is elsewhere. */
export function moveInList(key: string): void {
  focusList()?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
}

export function focusFilter(): void {
  const field = document.querySelector<HTMLInputElement>(".filter-input");
  field?.focus();
  field?.select();
}
