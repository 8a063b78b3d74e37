// One HTTP transaction: its headers, its bodies, its times.

import { createEffect, createMemo, createSignal, For, Match, on, Show, Switch, type JSX } from "solid-js";
import { flowFileUrl, previewBody } from "../api/request.ts";
import type { HeaderPair, MessageBody, Transaction } from "../api/types.ts";
import { curlCommand, type CurlCommand } from "../data/curl.ts";
import { asText } from "../data/preview.ts";
import { mediaType, type TransactionRow } from "../data/transaction_rows.ts";
import { bars, spanOf, type WaterfallBar } from "../data/waterfall.ts";
import { bytes, count, dateAndClock, duration, endpoint, microseconds } from "../format.ts";
import { go } from "../state/route.ts";
import { CopyButton, Facts } from "../ui/parts.tsx";
import { PhaseBar } from "../ui/phase_bar.tsx";
import { BodyView } from "./body_view.tsx";
import { Detail } from "./detail.tsx";

type HttpTab = "headers" | "request" | "response" | "timing";
const [tab, setTab] = createSignal<HttpTab>("headers");

/** Bytes of a request's body that a copied command has in it at most. */
const MAX_INLINE_BODY = 64 << 10;

async function curlOf(capture: string, transaction: Transaction): Promise<CurlCommand> {
  const { file, bytes: size } = transaction.request_body;
  let body: string | null = null;
  if (
    file !== null &&
    size !== null &&
    size <= MAX_INLINE_BODY &&
    transaction.request_body.encoding === null
  ) {
    body = asText(
      await previewBody(flowFileUrl(capture, transaction.flow, file), new AbortController().signal),
    );
  }
  const command = curlCommand(transaction, body);
  if (!command) throw new Error("Its request line makes no URL");
  return command;
}

export function HttpDetail(props: { capture: string; row: TransactionRow }): JSX.Element {
  const transaction = createMemo(() => JSON.parse(props.row.line) as Transaction);
  const body = (of: "request" | "response"): JSX.Element => (
    <BodyView
      capture={props.capture}
      flow={props.row.flow}
      body={transaction()[`${of}_body`]}
      type={mediaType(transaction()[`${of}_headers`])}
    />
  );
  const size = (body: MessageBody): string =>
    body.wire_bytes > 0 ? bytes(body.bytes ?? body.wire_bytes) : "none";
  return (
    <Detail
      label="Transaction"
      title={
        <h2 class="cut" title={props.row.host + props.row.target}>
          {props.row.method}{" "}
          <span class="mono">
            {props.row.host}
            {props.row.target}
          </span>
        </h2>
      }
      actions={
        <>
          <Actions capture={props.capture} row={props.row} transaction={transaction()} />
          <Show when={props.row.why}>
            <p class="why bad">{props.row.why}</p>
          </Show>
        </>
      }
      tabsLabel="Parts of the transaction"
      tab={tab()}
      onTab={setTab}
      tabs={[
        { id: "headers", title: "Headers" },
        { id: "request", title: "Request", note: size(transaction().request_body) },
        { id: "response", title: "Response", note: size(transaction().response_body) },
        { id: "timing", title: "Timing" },
      ]}
    >
      <Switch>
        <Match when={tab() === "headers"}>
          <Headers transaction={transaction()} />
        </Match>
        <Match when={tab() === "request"}>{body("request")}</Match>
        <Match when={tab() === "response"}>{body("response")}</Match>
        <Match when={tab() === "timing"}>
          <Timing row={props.row} transaction={transaction()} />
        </Match>
      </Switch>
    </Detail>
  );
}

function Actions(props: { capture: string; row: TransactionRow; transaction: Transaction }): JSX.Element {
  const [left, setLeft] = createSignal<readonly string[]>([]);
  createEffect(
    on(
      () => props.row.key,
      () => setLeft([]),
    ),
  );
  const copied = async (): Promise<string> => {
    const command = await curlOf(props.capture, props.transaction);
    setLeft(command.left);
    return command.text;
  };
  return (
    <>
      <div class="detail-actions">
        <CopyButton text={copied} title="Copies the request as a command for a shell">
          Copy as curl
        </CopyButton>
        <a
          class="button"
          download=""
          href={flowFileUrl(props.capture, props.row.flow, "http.har")}
          title="All transactions of its flow"
        >
          HAR
        </a>
        <a
          class="button"
          download=""
          href={flowFileUrl(props.capture, props.row.flow, "packets.pcap")}
          title="The packets of its flow"
        >
          Packets
        </a>
        <Show when={props.transaction.response_body.file}>
          {(file) => (
            <a class="button" download="" href={flowFileUrl(props.capture, props.row.flow, file())}>
              Body
            </a>
          )}
        </Show>
        <button
          type="button"
          class="button"
          onClick={() => go({ capture: props.capture, tab: "flows", item: String(props.row.flow) })}
        >
          Flow {props.row.flow}
        </button>
      </div>
      <Show when={left().length > 0}>
        <p class="why warn" role="status">
          Not in the command: {left().join("; ")}
        </p>
      </Show>
    </>
  );
}

function Headers(props: { transaction: Transaction }): JSX.Element {
  const one = (): Transaction => props.transaction;
  const statusLine = (): string =>
    [one().version, one().status, one().reason].filter((part) => part !== null && part !== "").join(" ");
  return (
    <div class="detail-body">
      <Facts
        items={[
          ["from", <span class="mono">{endpoint(one().client.address, one().client.port)}</span>],
          ["to", <span class="mono">{endpoint(one().server.address, one().server.port)}</span>],
          ["state", one().state],
        ]}
      />
      <h3>
        Request <span class="muted">{count(one().request_headers.length)}</span>
      </h3>
      <p class="mono start-line">
        {one().method ?? "?"} {one().target ?? "?"}
      </p>
      <HeaderList headers={one().request_headers} />
      <h3>
        Response <span class="muted">{count(one().response_headers.length)}</span>
      </h3>
      <p class="mono start-line">{statusLine() || "none was seen"}</p>
      <HeaderList headers={one().response_headers} />
    </div>
  );
}

function HeaderList(props: { headers: readonly HeaderPair[] }): JSX.Element {
  return (
    <dl class="headers mono">
      <For each={props.headers}>
        {([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </>
        )}
      </For>
    </dl>
  );
}

const PHASE_NAMES: Readonly<Record<WaterfallBar["phase"], string>> = {
  send: "Request sent",
  wait: "Waiting",
  receive: "Response received",
};

function Timing(props: { row: TransactionRow; transaction: Transaction }): JSX.Element {
  const whole = () => spanOf(props.row.phases);
  return (
    <div class="detail-body">
      <Show when={whole()} fallback={<p class="muted">No time of it was seen.</p>}>
        {(span) => (
          <>
            <p>
              Started {dateAndClock(span().from)}, took{" "}
              {duration(props.row.durationUs ?? span().to - span().from)}.
            </p>
            <table class="plain timing">
              <tbody>
                <For each={bars(props.row.phases)}>
                  {(bar) => (
                    <tr>
                      <th scope="row">{PHASE_NAMES[bar.phase]}</th>
                      <td class="timing-bar">
                        <div class="waterfall">
                          <PhaseBar bar={bar} axis={span()} />
                        </div>
                      </td>
                      <td class="end number">{duration(bar.span.to - bar.span.from)}</td>
                    </tr>
                  )}
                </For>
              </tbody>
            </table>
            <Facts
              items={[
                [
                  "first byte of the request",
                  dateAndClock(microseconds(props.transaction.times.request_first)),
                ],
                [
                  "last byte of the request",
                  dateAndClock(microseconds(props.transaction.times.request_last)),
                ],
                [
                  "first byte of the response",
                  dateAndClock(microseconds(props.transaction.times.response_first)),
                ],
                [
                  "last byte of the response",
                  dateAndClock(microseconds(props.transaction.times.response_last)),
                ],
              ]}
            />
          </>
        )}
      </Show>
    </div>
  );
}
