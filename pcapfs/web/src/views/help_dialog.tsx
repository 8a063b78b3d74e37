// The keys, and what the words of a filter mean.

import { For, type JSX } from "solid-js";
import type { KeyAction } from "../ui/keyboard.ts";
import { Dialog } from "../ui/dialog.tsx";

const NAMES: Readonly<Record<string, string>> = {
  ArrowDown: "↓",
  ArrowUp: "↑",
  PageDown: "PgDn",
  PageUp: "PgUp",
  Escape: "Esc",
};

const FILTERS: readonly (readonly [string, string])[] = [
  ["word", "is found in any text of a row"],
  ["-word", "is not found"],
  ["host:10.0.0.1", "in one field; the field of the filter lists them"],
  ["bytes:>10k", "numbers: 443, >100, <=5k, 10-20"],
  ['"two words"', "keeps the space"],
];

export function HelpDialog(props: { actions: readonly KeyAction[]; onClose: () => void }): JSX.Element {
  return (
    <Dialog title="Keys" onClose={props.onClose} closes="?">
      <table class="plain keys">
        <tbody>
          <For each={props.actions}>
            {(action) => (
              <tr>
                <td class="keys-list">
                  <For each={action.keys}>{(key) => <kbd>{NAMES[key] ?? key}</kbd>}</For>
                </td>
                <td>{action.what}</td>
              </tr>
            )}
          </For>
        </tbody>
      </table>
      <h3>Filters</h3>
      <table class="plain keys">
        <tbody>
          <For each={FILTERS}>
            {([form, what]) => (
              <tr>
                <td class="keys-list">
                  <code>{form}</code>
                </td>
                <td>{what}</td>
              </tr>
            )}
          </For>
        </tbody>
      </table>
    </Dialog>
  );
}
