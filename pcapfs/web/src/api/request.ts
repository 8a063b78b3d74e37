// Requests to the server, and where its files are. An error that reaches the user says what failed.

import type { Capture, FlowWithFiles, FlowsPage, PacketsPage, Reader, TransactionsPage } from "./types.ts";

/** An answer of the server that is no success; `status` 0 if there was no answer. */
export class RequestError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
    this.name = "RequestError";
  }
}

/** Characters of an error that are read at most; the server's are a sentence. */
const MAX_ERROR_LENGTH = 2000;

/** The error of an answer that is no success, with the server's own text where it gave one. */
export async function errorOf(response: Response): Promise<RequestError> {
  let message = `the server answered ${response.status} ${response.statusText}`.trim();
  try {
    const text = (await response.text()).slice(0, MAX_ERROR_LENGTH);
    const body: unknown = JSON.parse(text);
    if (typeof body === "object" && body !== null && "error" in body && typeof body.error === "string") {
      message = body.error;
    }
  } catch {
    // The answer had no JSON; the status is all there is.
  }
  return new RequestError(response.status, message);
}

async function send(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", redirect: "error", ...init });
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    throw new RequestError(0, "the server does not answer; is `pcapfs web` running?");
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function json<Answer>(path: string, signal?: AbortSignal): Promise<Answer> {
  const init: RequestInit = { headers: { accept: "application/json" } };
  if (signal) init.signal = signal;
  return (await send(path, init)).json() as Promise<Answer>;
}

export const captureUrl = (name: string): string => `/api/v1/captures/${encodeURIComponent(name)}`;

/** The URL of a file of a flow's directory. `file` may have folders, as in `bodies/1.response`. */
export function flowFileUrl(capture: string, flow: number, file: string): string {
  const path = file.split("/").map(encodeURIComponent).join("/");
  return `/captures/${encodeURIComponent(capture)}/flows/${flow}/${path}`;
}

export async function listCaptures(signal?: AbortSignal): Promise<Capture[]> {
  return (await json<{ captures: Capture[] }>("/api/v1/captures", signal)).captures;
}

export function findCapture(name: string, signal?: AbortSignal): Promise<Capture> {
  return json(captureUrl(name), signal);
}

export async function listReaders(name: string, signal?: AbortSignal): Promise<Reader[]> {
  return (await json<{ readers: Reader[] }>(`${captureUrl(name)}/readers`, signal)).readers;
}

export async function control(name: string, action: "start" | "stop"): Promise<void> {
  await send(`${captureUrl(name)}/${action}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  });
}

type Cursor = string | number | null;

function paged(url: string, after: Cursor, limit: number): string {
  const query = new URLSearchParams({ limit: String(limit) });
  if (after !== null) query.set("after", String(after));
  return `${url}?${query}`;
}

export function listFlows(
  name: string,
  after: Cursor,
  limit: number,
  signal: AbortSignal,
): Promise<FlowsPage> {
  return json(paged(`${captureUrl(name)}/flows`, after, limit), signal);
}

export function listTransactions(
  name: string,
  after: Cursor,
  limit: number,
  signal: AbortSignal,
): Promise<TransactionsPage> {
  return json(paged(`${captureUrl(name)}/http`, after, limit), signal);
}

export function findFlow(name: string, flow: number, signal?: AbortSignal): Promise<FlowWithFiles> {
  return json(`${captureUrl(name)}/flows/${flow}`, signal);
}

export function listPackets(
  name: string,
  flow: number,
  after: Cursor,
  limit: number,
  signal: AbortSignal,
): Promise<PacketsPage> {
  return json(paged(`${captureUrl(name)}/flows/${flow}/packets`, after, limit), signal);
}

/** The bytes of a body, at most 1 MiB of them; the server refuses larger ones. */
export async function previewBody(url: string, signal: AbortSignal): Promise<Uint8Array> {
  return new Uint8Array(await (await send(`${url}?preview=1`, { signal })).arrayBuffer());
}

/** Asks whether the server would serve `url`, and reads nothing of it. */
export async function probe(url: string): Promise<void> {
  const stop = new AbortController();
  try {
    await send(url, { signal: stop.signal });
  } finally {
    stop.abort();
  }
}
