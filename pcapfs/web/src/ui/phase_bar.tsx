// A phase of a transaction, drawn as a bar.

import type { JSX } from "solid-js";
import { place, type Span, type WaterfallBar } from "../data/waterfall.ts";

/** At the very end of the axis it moves left by the least width of a bar, as it is cut off there. */
export function PhaseBar(props: { bar: WaterfallBar; axis: Span; shift?: number }): JSX.Element {
  const at = (time: number): number => place(time - (props.shift ?? 0), props.axis) * 100;
  return (
    <span
      class={`bar bar-${props.bar.phase}`}
      style={{
        left: `min(${at(props.bar.span.from)}%, 100% - var(--bar-least))`,
        width: `${at(props.bar.span.to) - at(props.bar.span.from)}%`,
      }}
    />
  );
}
