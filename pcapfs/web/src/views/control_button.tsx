// Starts and stops a capture, where the user may.

import { createSignal, Show, type JSX } from "solid-js";
import { control } from "../api/request.ts";
import type { Capture } from "../api/types.ts";
import { refreshCapture } from "../state/session.ts";

const STOPPABLE: ReadonlySet<Capture["state"]> = new Set(["pending", "running", "retrying"]);

export function ControlButton(props: { capture: Capture }): JSX.Element {
  const [busy, setBusy] = createSignal(false);
  const [error, setError] = createSignal<string | null>(null);
  const action = (): "start" | "stop" => (STOPPABLE.has(props.capture.state) ? "stop" : "start");
  const act = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await control(props.capture.name, action());
      await refreshCapture(props.capture.name);
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    }
    setBusy(false);
  };
  return (
    <Show when={props.capture.may_control}>
      <button
        type="button"
        class="button"
        disabled={busy()}
        onClick={() => void act()}
        aria-label={`${action() === "stop" ? "Stop" : "Start"} ${props.capture.name}`}
      >
        {action() === "stop" ? "Stop" : "Start"}
      </button>
      <Show when={error()}>
        <div class="bad small-text" role="alert">
          {error()}
        </div>
      </Show>
    </Show>
  );
}
