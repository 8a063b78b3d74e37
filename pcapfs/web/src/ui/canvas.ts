// The common part of all drawings: a canvas of the size of its element in the pixels of the screen, the
// colours of the page, and one loop that draws what has moved.

import { createEffect, createSignal, onCleanup, onMount, untrack } from "solid-js";
import { isDark } from "../state/preferences.ts";

export interface Drawing {
  context: CanvasRenderingContext2D;
  width: number;
  height: number;
  /** A colour of the page by the name of its custom property. */
  color: (name: string) => string;
}

let colors = new Map<string, string>();

function color(name: string): string {
  let value = colors.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    colors.set(name, value);
  }
  return value;
}

/** To be called after the theme has changed. */
export function forgetColors(): void {
  colors = new Map();
}

/**
 * Draws on the canvas now, after each change of a signal that `draw` reads, when the size or the theme
 * has changed, and in each frame in which `moved` returns another number than before.
 */
export function drawOn(
  canvas: () => HTMLCanvasElement,
  draw: (drawing: Drawing) => void,
  moved?: (width: number) => number,
): void {
  onMount(() => {
    const element = canvas();
    const context = element.getContext("2d");
    if (!context) return;
    // A signal, so that what `draw` reads is known once there is room to draw.
    const [size, setSize] = createSignal({ width: 0, height: 0 });
    let last = NaN;
    const paint = (): void => {
      const { width, height } = size();
      const scale = window.devicePixelRatio || 1;
      const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
      if (element.width !== wide || element.height !== high) [element.width, element.height] = [wide, high];
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.clearRect(0, 0, width, height);
      if (width > 0 && height > 0) draw({ context, width, height, color });
    };
    const observer = new ResizeObserver(() => {
      setSize({ width: element.clientWidth, height: element.clientHeight });
    });
    observer.observe(element);
    createEffect(() => {
      isDark();
      paint();
    });
    let frame = 0;
    const step = (): void => {
      frame = requestAnimationFrame(step);
      const now = untrack(() => moved?.(size().width));
      if (now === undefined || now === last) return;
      last = now;
      untrack(paint);
    };
    if (moved) step();
    onCleanup(() => {
      observer.disconnect();
      cancelAnimationFrame(frame);
    });
  });
}
