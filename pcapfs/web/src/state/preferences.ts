// The user's choices for this browser. Storage may be refused; the choice lasts as long as the page
// then.

import { createSignal, type Accessor } from "solid-js";

function stored(name: string): string | null {
  try {
    return localStorage.getItem(`pcapfs.${name}`);
  } catch {
    return null;
  }
}

function store(name: string, value: string): void {
  try {
    localStorage.setItem(`pcapfs.${name}`, value);
  } catch {
    // Nothing depends on it.
  }
}

export type Theme = "system" | "light" | "dark";
const THEMES: readonly Theme[] = ["system", "light", "dark"];

const [theme, setThemeSignal] = createSignal<Theme>(
  THEMES.find((one) => one === stored("theme")) ?? "system",
);
const system = window.matchMedia("(prefers-color-scheme: dark)");
const [systemIsDark, setSystemIsDark] = createSignal(system.matches);
system.addEventListener("change", () => setSystemIsDark(system.matches));

export { theme };

/** Whether the page is dark now; drawings depend on it. */
export const isDark = (): boolean => (theme() === "system" ? systemIsDark() : theme() === "dark");

export function applyTheme(): void {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
}

/** System, light, dark, and again. */
export function nextTheme(): void {
  const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length] ?? "system";
  store("theme", next);
  setThemeSignal(next);
}

/** A number that is kept, such as the place of a divider. */
export function keptNumber(name: string, first: number): [Accessor<number>, (value: number) => void] {
  const kept = Number(stored(name));
  const [value, setValue] = createSignal(Number.isFinite(kept) && kept > 0 ? kept : first);
  return [
    value,
    (next) => {
      store(name, String(Math.round(next)));
      setValue(next);
    },
  ];
}
