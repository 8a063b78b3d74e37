import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import type { Transaction } from "../src/api/types.ts";
import { curlCommand, quote } from "../src/data/curl.ts";

const NO_BODY = { wire_bytes: 0, bytes: 0, encoding: null, framing: "none", file: null } as const;

function request(part: Partial<Transaction>): Transaction {
  return {
    flow: 1,
    index: 1,
    client: { address: "10.0.0.1", port: 40000 },
    server: { address: "10.0.0.2", port: 80 },
    duration_us: 1,
    method: "GET",
    target: "/",
    host: "example.com",
    version: "HTTP/1.1",
    status: 200,
    reason: "OK",
    request_headers: [["Host", "example.com"]],
    response_headers: [],
    request_body: NO_BODY,
    response_body: NO_BODY,
    times: { request_first: null, request_last: null, response_first: null, response_last: null },
    state: "complete",
    why: null,
    ...part,
  };
}

/** The arguments that curl would get from a shell. */
function args(command: string): string[] {
  const script = `curl() { printf '%s\\0' "$@"; }\n${command}\n`;
  return execFileSync("sh", ["-c", script]).toString().split("\0").slice(0, -1);
}

test("a shell gives curl the words as they were sent", () => {
  const nasty = ["'", "''; id #", "$(id)", "`id`", "a\\'b", "!x", "\\", '"', "*", "~", "a b", "{1,2}", "ü"];
  for (const word of nasty) {
    assert.deepEqual(args(`curl ${quote(word)}`), [word]);
    const command = curlCommand(request({ request_headers: [["X-A", word]], target: `/${word}` }), null);
    assert.deepEqual(args(command!.text), [
      "--path-as-is",
      "--globoff",
      `http://example.com/${word}`,
      "-H",
      `X-A: ${word}`,
    ]);
  }
});

test("methods, versions and headers", () => {
  const command = curlCommand(
    request({
      method: "DELETE",
      version: "HTTP/1.0",
      request_headers: [
        ["Host", "example.com"],
        ["Content-Length", "3"],
        ["Accept", "*/*"],
        ["X-Empty", ""],
      ],
    }),
    null,
  );
  assert.deepEqual(args(command!.text), [
    "--path-as-is",
    "--globoff",
    "http://example.com/",
    "-X",
    "DELETE",
    "--http1.0",
    "-H",
    "Accept: */*",
    "-H",
    "X-Empty;",
  ]);
  assert.ok(args(curlCommand(request({ method: "HEAD" }), null)!.text).includes("--head"));
});

test("a port that the Host header leaves out is in the URL, and the header stays", () => {
  const server = { address: "10.0.0.2", port: 8080 };
  assert.deepEqual(args(curlCommand(request({ server }), null)!.text).slice(2), [
    "http://example.com:8080/",
    "-H",
    "Host: example.com",
  ]);
  assert.deepEqual(args(curlCommand(request({ server, host: "example.com:8080" }), null)!.text).slice(2), [
    "http://example.com:8080/",
  ]);
  assert.deepEqual(args(curlCommand(request({ host: null }), null)!.text).slice(2), ["http://10.0.0.2:80/"]);
});

test("nothing makes curl read a file or run an option", () => {
  const sent = { ...NO_BODY, wire_bytes: 12, bytes: 12, file: "bodies/1.request" };
  const command = curlCommand(
    request({
      method: "POST",
      request_body: sent,
      request_headers: [
        ["@/etc/passwd", ""],
        ["-K", "x"],
        ["a b", "c"],
      ],
    }),
    "@/etc/passwd",
  );
  const words = args(command!.text);
  // curl reads no file for --data-raw, and -H begins with a name.
  assert.deepEqual(words.slice(3), ["-X", "POST", "-H", "-K: x", "--data-raw", "@/etc/passwd"]);
  assert.equal(command!.left.length, 1);
  assert.equal(curlCommand(request({ host: "-K/etc/passwd" }), null), null);
  assert.equal(curlCommand(request({ host: "a@b" }), null), null);
  assert.equal(curlCommand(request({ method: "GET -o x" }), null), null);
});

test("control characters are not pasted into a terminal", () => {
  for (const bad of ["\u001b[2J", "a\nid", "a\rid", "\u0000", "\u202e", "\u009b"]) {
    assert.equal(curlCommand(request({ target: `/${bad}` }), null), null);
    const command = curlCommand(request({ request_headers: [["X", bad]] }), null);
    assert.ok(!command!.text.includes(bad));
    assert.equal(command!.left.length, 1);
  }
  const sent = { ...NO_BODY, wire_bytes: 3, bytes: 3, file: "bodies/1.request" };
  const command = curlCommand(request({ method: "POST", request_body: sent }), "\u001b[2J");
  assert.ok(command!.text.includes("--data-binary @1.request"));
});

test("a body that is not there as text is named", () => {
  const sent = { ...NO_BODY, wire_bytes: 3, bytes: 3, file: "bodies/1.request" };
  const command = curlCommand(request({ method: "POST", request_body: sent }), null);
  assert.deepEqual(args(command!.text).slice(-2), ["--data-binary", "@1.request"]);
  assert.equal(command!.left.length, 1);
});
