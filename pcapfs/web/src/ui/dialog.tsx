// A dialog over the page. The browser keeps the keyboard in it and closes it with Escape.

import { onCleanup, onMount, type JSX } from "solid-js";

export function Dialog(props: {
  title: string;
  onClose: () => void;
  closes?: string;
  children: JSX.Element;
}): JSX.Element {
  let dialog!: HTMLDialogElement;
  onMount(() => {
    const before = document.activeElement;
    dialog.showModal();
    onCleanup(() => before instanceof HTMLElement && before.focus());
  });
  return (
    <dialog
      class="dialog"
      ref={dialog}
      aria-labelledby="dialog-title"
      onClose={() => props.onClose()}
      onClick={(event) => event.target === dialog && dialog.close()}
      onKeyDown={(event) => {
        if (props.closes === undefined || event.key !== props.closes) return;
        event.stopPropagation();
        dialog.close();
      }}
    >
      <div class="dialog-inside">
        <header class="detail-head">
          <h2 id="dialog-title">{props.title}</h2>
          <button type="button" class="button close" aria-label="Close" onClick={() => dialog.close()}>
            ✕
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}
