// The body of a message. It is a stranger's: text is text, a picture is in a frame without any rights,
// and everything else is shown as bytes.

import { createEffect, createSignal, Match, on, onCleanup, Show, Switch, type JSX } from "solid-js";
import { flowFileUrl, previewBody } from "../api/request.ts";
import type { MessageBody } from "../api/types.ts";
import { isImage, preview, PREVIEW_BYTES, type BodyPreview } from "../data/preview.ts";
import { bytes } from "../format.ts";
import { CopyButton } from "../ui/parts.tsx";

type BodyState = { kind: "loading" } | { kind: "large" } | { kind: "error"; message: string } | BodyPreview;

export function BodyView(props: {
  capture: string;
  flow: number;
  body: MessageBody;
  type: string;
}): JSX.Element {
  const [state, setState] = createSignal<BodyState>({ kind: "loading" });
  const url = (): string | null =>
    props.body.file === null ? null : flowFileUrl(props.capture, props.flow, props.body.file);
  createEffect(
    on(
      () => [url(), props.type] as const,
      ([where, type]) => {
        if (where === null) return setState({ kind: "empty" });
        if ((props.body.bytes ?? 0) > PREVIEW_BYTES) return setState({ kind: "large" });
        if (isImage(type)) return setState({ kind: "image" });
        setState({ kind: "loading" });
        const stop = new AbortController();
        onCleanup(() => stop.abort());
        return void previewBody(where, stop.signal).then(
          (found) => setState(preview(found, type)),
          (error: Error) => stop.signal.aborted || setState({ kind: "error", message: error.message }),
        );
      },
    ),
  );
  const text = (): string => {
    const now = state();
    return now.kind === "text" || now.kind === "bytes" ? now.text : "";
  };
  const note = (): string | null => {
    const now = state();
    return now.kind === "text" || now.kind === "bytes" ? now.note : null;
  };
  const message = (): string => {
    const now = state();
    return now.kind === "error" ? now.message : "";
  };
  return (
    <div class="detail-body body-view">
      <div class="body-bar">
        <span class="muted">
          {[
            props.type,
            props.body.bytes === null ? null : bytes(props.body.bytes),
            props.body.encoding && `sent as ${props.body.encoding}, ${bytes(props.body.wire_bytes)}`,
          ]
            .filter(Boolean)
            .join(" · ")}
        </span>
        <Show when={text() !== ""}>
          <CopyButton text={text}>Copy</CopyButton>
        </Show>
        <Show when={url()}>
          {(where) => (
            <a class="button" download="" href={where()}>
              Download
            </a>
          )}
        </Show>
      </div>
      <Switch>
        <Match when={state().kind === "empty"}>
          <p class="muted">{props.body.wire_bytes > 0 ? "The body is not there yet." : "It has no body."}</p>
        </Match>
        <Match when={state().kind === "large"}>
          <p class="muted">It is larger than {bytes(PREVIEW_BYTES)}. Download it to look at it.</p>
        </Match>
        <Match when={state().kind === "error"}>
          <p class="bad" role="alert">
            {message()}
          </p>
        </Match>
        <Match when={state().kind === "image"}>
          <iframe
            class="picture"
            sandbox=""
            src={`${url() ?? ""}?preview=1`}
            title="The picture, without any rights"
            referrerpolicy="no-referrer"
          />
        </Match>
        <Match when={state().kind === "text" || state().kind === "bytes"}>
          <pre class="body-text" classList={{ wrap: state().kind === "text" }} tabindex="0">
            {text()}
          </pre>
          <Show when={note()}>
            <p class="muted">{note()}</p>
          </Show>
        </Match>
      </Switch>
    </div>
  );
}
