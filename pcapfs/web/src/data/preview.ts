// The ways in which the bytes of a body are shown. They are a stranger's: text is shown as text, pictures in a
// frame without rights, anything else as bytes.

import { count } from "../format.ts";

export type BodyPreview =
  | { kind: "empty" }
  | { kind: "text"; text: string; note: string | null }
  | { kind: "bytes"; text: string; note: string | null }
  | { kind: "image" };

/** Bytes of a body that the server gives for a preview; the server refuses more. */
export const PREVIEW_BYTES = 1 << 20;
/** Characters that are shown: more would make the page slow. */
const SHOWN_CHARACTERS = 200_000;
/** Bytes that are shown as hexadecimal digits. */
const SHOWN_BYTES = 4096;
/** Pictures that a browser shows and that have no script. */
const IMAGES = new Set([
  "image/png",
  "image/jpeg",
  "image/gif",
  "image/webp",
  "image/avif",
  "image/bmp",
  "image/x-icon",
  "image/vnd.microsoft.icon",
]);

export const isImage = (type: string): boolean => IMAGES.has(type);

/** The bytes as UTF-8 text; `null` if they are not. A character may be cut at the end. */
export function asText(bytes: Uint8Array): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    // Valid UTF-8 with other control characters than line ends, tabs and escapes is no text.
    return /[\u0000-\u0008\u000e-\u001a\u001c-\u001f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

export function preview(bytes: Uint8Array, type: string): BodyPreview {
  if (bytes.length === 0) return { kind: "empty" };
  const text = asText(bytes);
  if (text === null) return { kind: "bytes", ...hexadecimal(bytes) };
  const looksLikeJson = /[/+]json$/.test(type) || /^\s*[[{]/.test(text);
  const pretty = looksLikeJson ? prettyJson(text) : null;
  const shown = pretty ?? text;
  const cut = shown.length > SHOWN_CHARACTERS;
  return {
    kind: "text",
    text: cut ? shown.slice(0, SHOWN_CHARACTERS) : shown,
    note: cut ? `The first ${count(SHOWN_CHARACTERS)} of ${count(shown.length)} characters.` : null,
  };
}

/**
 * JSON with a line for each value; `null` if it is none. It works on the text: JSON.parse would
 * round large numbers, drop repeated names and put numeric names first.
 */
export function prettyJson(text: string): string | null {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let depth = 0;
  let out = "";
  const line = (): string => `\n${"  ".repeat(Math.min(depth, 40))}`;
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[[{]\s*[\]}]|[[\]{},:]|[^\s"[\]{},:]+/gs)) {
    if (token === "{" || token === "[") {
      depth += 1;
      out += token + line();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      out += line() + token;
    } else if (token === ",") out += token + line();
    else if (token === ":") out += ": ";
    else out += /^[[{]/.test(token) ? token.replace(/\s+/g, "") : token;
  }
  return out;
}

function hexadecimal(bytes: Uint8Array): { text: string; note: string | null } {
  const shown = bytes.subarray(0, SHOWN_BYTES);
  const lines: string[] = [];
  for (let at = 0; at < shown.length; at += 16) {
    const row = shown.subarray(at, at + 16);
    const digits = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"));
    const halves = [digits.slice(0, 8).join(" "), digits.slice(8).join(" ")].join("  ");
    const letters = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "."));
    lines.push(`${at.toString(16).padStart(8, "0")}  ${halves.padEnd(48)}  ${letters.join("")}`);
  }
  const note =
    bytes.length > shown.length ? `The first ${count(SHOWN_BYTES)} of ${count(bytes.length)} bytes.` : null;
  return { text: lines.join("\n"), note };
}
