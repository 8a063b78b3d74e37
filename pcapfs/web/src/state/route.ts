// The place where the user is. It is kept in the part of the address after `#`, so that a place can be shared and the
// back button works. `#/web/http/12.3?filter=status:404` is transaction 3 of flow 12 of capture `web`.

import { createSignal } from "solid-js";

export type CaptureTab = "overview" | "flows" | "http";
export const TABS: readonly CaptureTab[] = ["overview", "flows", "http"];

export interface Route {
  /** `null` for the list of captures. */
  capture: string | null;
  tab: CaptureTab;
  /** Number of a flow, or flow and index of a transaction. */
  item: string | null;
  filter: string;
}

function decoded(part: string | undefined): string {
  try {
    return decodeURIComponent(part ?? "");
  } catch {
    return "";
  }
}

export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split("?", 2);
  const [, name, tab, item] = path.split("/");
  const known = TABS.find((one) => one === tab) ?? "overview";
  return {
    capture: decoded(name) || null,
    tab: known,
    item: known === "overview" ? null : decoded(item) || null,
    filter: new URLSearchParams(query).get("filter") ?? "",
  };
}

export function writeRoute({ capture, tab, item, filter }: Route): string {
  if (capture === null) return "#/";
  const parts = [capture, ...(tab === "overview" ? [] : [tab, ...(item === null ? [] : [item])])];
  const query = filter === "" || tab === "overview" ? "" : `?${new URLSearchParams({ filter })}`;
  return `#/${parts.map(encodeURIComponent).join("/")}${query}`;
}

const [current, setCurrent] = createSignal(parseRoute(location.hash));
window.addEventListener("hashchange", () => setCurrent(parseRoute(location.hash)));

export const route = current;

/** Goes elsewhere. `replace` leaves no entry for the back button. */
export function go(to: Partial<Route>, replace = false): void {
  const next: Route = { capture: null, tab: "overview", item: null, filter: "", ...to };
  history[replace ? "replaceState" : "pushState"](null, "", writeRoute(next));
  setCurrent(next);
}

/** Changes a part of the place, without an entry for the back button. */
export const refine = (part: Partial<Route>): void => go({ ...current(), ...part }, true);
