// The arithmetic of a long list, of whose rows only those on the screen are drawn. All rows have the same height.

export interface ListWindow {
  /** The first row that is drawn. */
  first: number;
  /** The row after the last that is drawn. */
  end: number;
}

/** Rows that are drawn beyond each edge, so that a fast scroll shows no blank. */
const MARGIN = 6;

export function listWindow(scrollTop: number, height: number, rowHeight: number, rows: number): ListWindow {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - MARGIN);
  const end = Math.min(rows, Math.ceil((scrollTop + height) / rowHeight) + MARGIN);
  return { first: Math.min(first, rows), end: Math.max(end, Math.min(first, rows)) };
}

/** Elements that are needed to draw any window of this height. */
export const slotsOf = (height: number, rowHeight: number): number =>
  Math.ceil(height / rowHeight) + 1 + 2 * MARGIN;

/**
 * The row that an element draws. Each row keeps its element while it is drawn, so that a scroll by a
 * few rows changes a few elements.
 */
export const rowOfSlot = (slot: number, slots: number, first: number): number =>
  first + ((((slot - first) % slots) + slots) % slots);

/** Whether the end of the list is in view, to within half a row. */
export const isAtEnd = (scrollTop: number, height: number, rowHeight: number, rows: number): boolean =>
  scrollTop + height >= rows * rowHeight - rowHeight / 2;

/** The place to scroll to, so that a row is in view. */
export function scrollTo(row: number, scrollTop: number, height: number, rowHeight: number): number {
  const top = row * rowHeight;
  if (top < scrollTop) return top;
  if (top + rowHeight > scrollTop + height) return top + rowHeight - height;
  return scrollTop;
}
