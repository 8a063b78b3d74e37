// A request as a command of curl(1). Everything in it comes from packets and is hostile: a word that
// the shell or curl would read in another way is quoted or left out, never passed on.

import type { HeaderPair, Transaction } from "../api/types.ts";
import { endpoint } from "../format.ts";

/** The characters of a method or a header's name (RFC 9110 5.6.2). */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;
/** Bidirectional controls, which make a command look like another one. */
const DIRECTION = /[\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

/** One word of a POSIX shell. Text with control characters is no word that can be pasted. */
export function quote(text: string): string {
  if (/^[A-Za-z0-9_\-.,:/@=+]+$/.test(text)) return text;
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** Headers that curl makes by itself, or that are of the connection and not of the request. */
const LEFT_OUT = new Set(["host", "content-length", "connection", "transfer-encoding", "expect"]);

export interface CurlCommand {
  text: string;
  /** Parts of the request that the command does not have, for people. */
  left: string[];
}

interface RequestUrl {
  url: string;
  /** The Host header, if curl would make another one of the URL. */
  host: string | null;
}

/** The URL that was asked for; `null` if the request does not say it. */
function urlOf({ target, host, server }: Transaction): RequestUrl | null {
  if (target === null || CONTROL.test(target) || DIRECTION.test(target)) return null;
  if (/^https?:\/\//i.test(target)) return { url: target, host: null };
  if (!target.startsWith("/")) return null;
  const authority = host ?? endpoint(server.address, server.port);
  if (!/^[A-Za-z0-9.\-_~:[\]%]+$/.test(authority)) return null;
  // The Host header often leaves out a port that is not 80.
  const complete = /:\d+$/.test(authority) || server.port === 80;
  const url = `http://${authority}${complete ? "" : `:${server.port}`}${target}`;
  return { url, host: complete ? null : authority };
}

function headerWords(headers: readonly HeaderPair[], left: string[]): string[] {
  return headers.flatMap(([name, value]) => {
    if (LEFT_OUT.has(name.toLowerCase())) return [];
    // curl would read `@name` as a file of headers; that is no token without the `@`.
    if (!TOKEN.test(name) || CONTROL.test(value) || DIRECTION.test(value)) {
      left.push("a header with characters that no header may have");
      return [];
    }
    // curl sends a header without a value only with a semicolon.
    return [`-H ${quote(value === "" ? `${name};` : `${name}: ${value}`)}`];
  });
}

/** `body`: the request's body as text, or `null` if it is none or is not text. */
export function curlCommand(transaction: Transaction, body: string | null): CurlCommand | null {
  const url = urlOf(transaction);
  const method = transaction.method;
  if (url === null || method === null || !TOKEN.test(method)) return null;
  const left: string[] = [];
  // As sent: curl must not resolve `..` or read braces as a list of URLs.
  const words = [`curl --path-as-is --globoff ${quote(url.url)}`];
  if (method === "HEAD") words.push("--head");
  else if (method !== "GET") words.push(`-X ${quote(method)}`);
  if (transaction.version?.endsWith("1.0")) words.push("--http1.0");
  if (url.host !== null) words.push(`-H ${quote(`Host: ${url.host}`)}`);
  words.push(...headerWords(transaction.request_headers, left));
  const sent = transaction.request_body;
  if (sent.wire_bytes > 0) {
    if (body !== null && !/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/.test(body)) {
      // Not --data, which reads a file if the body begins with an `@`.
      words.push(`--data-raw ${quote(body)}`);
    } else {
      words.push(`--data-binary ${quote(`@${(sent.file ?? "body").split("/").pop() ?? "body"}`)}`);
      left.push("the body: download it first, into the folder where curl runs");
    }
  }
  return { text: words.join(" \\\n  "), left: [...new Set(left)] };
}
