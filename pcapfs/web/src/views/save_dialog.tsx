// Packets of the capture as a savefile: to the disk of the browser, or as a command for a terminal.

import { createSignal, Show, type JSX } from "solid-js";
import { probe } from "../api/request.ts";
import { quote } from "../data/curl.ts";
import { savefileUrl, type SavefileChoice } from "../data/savefile.ts";
import { CopyButton } from "../ui/parts.tsx";
import { Dialog } from "../ui/dialog.tsx";

export function SaveDialog(props: { capture: string; onClose: () => void }): JSX.Element {
  const [choice, setChoice] = createSignal<SavefileChoice>({
    from: "replay",
    format: "pcapng",
    filter: "",
    seconds: "",
    packets: "",
  });
  const [error, setError] = createSignal<string | null>(null);
  const set = (part: Partial<SavefileChoice>): void => {
    setChoice({ ...choice(), ...part });
    setError(null);
  };
  const url = (): string => savefileUrl(props.capture, choice());
  const isEndless = (): boolean =>
    choice().from !== "replay" && choice().seconds === "" && choice().packets === "";
  const command = (): string => `curl -sN ${quote(new URL(url(), location.href).href)} | tcpdump -nr -`;
  const save = async (): Promise<void> => {
    try {
      // A download would not say why a filter is refused.
      await probe(url());
      const link = document.createElement("a");
      link.href = url();
      link.download = `${props.capture}.${choice().format}`;
      link.click();
      props.onClose();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    }
  };
  return (
    <Dialog title="Save packets" onClose={props.onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void save())}>
        <Fields choice={choice()} onChange={set} isWrong={error() !== null} />
        <Show when={error()}>
          <p class="bad" role="alert">
            {error()}
          </p>
        </Show>
        <Show when={isEndless()}>
          <p class="warn">Without a bound, it goes on until you stop the download.</p>
        </Show>
        <pre class="command mono" tabindex="0">
          {command()}
        </pre>
        <div class="form-actions">
          <CopyButton text={command}>Copy command</CopyButton>
          <button type="submit" class="button main">
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface FieldsProps {
  choice: SavefileChoice;
  onChange: (part: Partial<SavefileChoice>) => void;
  /** The server has refused the filter. */
  isWrong: boolean;
}

function Fields(props: FieldsProps): JSX.Element {
  return (
    <>
      <label>
        Which{" "}
        <select
          value={props.choice.from}
          onChange={(event) => props.onChange({ from: event.currentTarget.value as SavefileChoice["from"] })}
        >
          <option value="replay">all that are kept now</option>
          <option value="follow">all that are kept, and new ones</option>
          <option value="live">new ones</option>
        </select>
      </label>
      <label>
        Format{" "}
        <select
          value={props.choice.format}
          onChange={(event) =>
            props.onChange({ format: event.currentTarget.value as SavefileChoice["format"] })
          }
        >
          <option value="pcapng">pcapng</option>
          <option value="pcap">pcap</option>
        </select>
      </label>
      <label>
        Filter{" "}
        <input
          type="text"
          class="mono"
          spellcheck={false}
          value={props.choice.filter}
          placeholder="tcp port 80"
          aria-invalid={props.isWrong}
          onInput={(event) => props.onChange({ filter: event.currentTarget.value })}
        />
      </label>
      <label>
        For seconds{" "}
        <input
          type="number"
          min="1"
          value={props.choice.seconds}
          onInput={(event) => props.onChange({ seconds: event.currentTarget.value })}
        />
      </label>
      <label>
        Packets at most{" "}
        <input
          type="number"
          min="1"
          value={props.choice.packets}
          onInput={(event) => props.onChange({ packets: event.currentTarget.value })}
        />
      </label>
    </>
  );
}
