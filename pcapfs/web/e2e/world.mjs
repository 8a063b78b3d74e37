// A daemon, a server of pages to capture, `pcapfs web` and a browser, for the tests of the page. All of
// it is on the loopback interface and in a temporary folder, and is gone after `close`.

import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { createServer as createSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { PCAPFS, CHROMIUM } = process.env;
/** Milliseconds to wait for anything: much more than it takes, as the machine may be busy. */
export const PATIENCE = 30_000;

/** A picture of one pixel. */
export const PICTURE = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
  "base64",
);
export const ATTACK = "<img src=x onerror=window.attacked=1>";

function answer(incoming, response) {
  const send = (status, type, body) =>
    response.writeHead(status, { "content-type": type, "x-attack": ATTACK }).end(body);
  const path = incoming.url.split("?")[0];
  if (path === "/data.json")
    return send(200, "application/json", '{"id":12345678901234567890,"items":[1,2]}');
  if (path === "/picture.png") return send(200, "image/png", PICTURE);
  if (path === "/attack") return send(200, "text/html", `<script>window.attacked=1</script>${ATTACK}`);
  if (path === "/text") return send(200, "text/plain", "hello\n".repeat(1000));
  return send(404, "text/plain", "there is no such page\n");
}

/** Waits until `found` returns something; an error that says what was waited for if it does not. */
export async function until(what, found) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await found();
    if (value) return value;
    if (Date.now() > end) throw new Error(`waited ${PATIENCE} ms for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class World {
  #children = new Set();

  /** `mount` says what else to show, given the folder. */
  static async open({ mount = () => [] } = {}) {
    const world = new World();
    try {
      await world.#open(mount);
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  async #open(mount) {
    this.folder = mkdtempSync(join(tmpdir(), "pcapfs-e2e-"));
    // Another user reaches the socket in it.
    chmodSync(this.folder, 0o755);
    this.mountpoint = join(this.folder, "tree");
    mkdirSync(this.mountpoint);
    this.socket = join(this.folder, "control.sock");
    this.pages = createServer(answer);
    await new Promise((resolve) => this.pages.listen(0, "127.0.0.1", resolve));
    this.port = this.pages.address().port;
    this.shown = mount(this.folder);
    await this.startDaemon();
    this.webPort = await freePort();
    await this.startWeb();
    this.browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    });
  }

  #start(args, user = {}) {
    const child = spawn(PCAPFS, ["--socket", this.socket, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      ...user,
    });
    child.said = "";
    child.stderr.on("data", (data) => (child.said += data));
    child.ended = new Promise((resolve) => child.on("exit", resolve));
    this.#children.add(child);
    child.ended.then(() => this.#children.delete(child));
    return child;
  }

  async startDaemon() {
    const kept = ["--ring-dir", join(this.folder, "ring"), "--state", join(this.folder, "state")];
    this.daemon = this.#start([
      "mount",
      this.mountpoint,
      ...kept,
      ...this.shown,
      "--ring",
      "16M",
      "-c",
      `web=lo tcp port ${this.port}`,
    ]);
    await until(`the daemon: ${this.daemon.said}`, () => {
      if (this.daemon.exitCode !== null) throw new Error(this.daemon.said);
      return status(this.mountpoint, "web")?.state === "running";
    });
  }

  async startWeb() {
    ({ child: this.web, url: this.url } = await this.#serve(this.webPort));
  }

  /** The server of a user who has no rights but those of others; returns its address. */
  async startWebOfOther() {
    return (await this.#serve(0, { uid: 65534, gid: 65534 })).url;
  }

  async #serve(port, user) {
    const child = this.#start(["web", "--listen", `127.0.0.1:${port}`, "--json"], user);
    const ready = new Promise((resolve, reject) => {
      createInterface({ input: child.stdout }).once("line", resolve);
      child.on("exit", () => reject(new Error(child.said)));
    });
    return { child, url: JSON.parse(await ready).url };
  }

  async stop(child, signal = "SIGTERM") {
    child.kill(signal);
    await child.ended;
  }

  /** Fetches a page that is captured; each on a connection of its own. */
  fetch(path, { method = "GET", headers = {}, body } = {}) {
    return new Promise((resolve, reject) => {
      const sent = request(
        { host: "127.0.0.1", port: this.port, path, method, headers, agent: false },
        (response) => {
          response.resume().on("end", resolve);
        },
      );
      sent.on("error", reject);
      sent.end(body);
    });
  }

  /** Lets other users read the capture, and nothing else. */
  letOthersRead() {
    chmodSync(join(this.mountpoint, "web"), 0o755);
  }

  /** A page of the browser. `faults` gets what no page may do: errors, requests to elsewhere. */
  async page(options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    page.faults = [];
    page.on("pageerror", (error) => page.faults.push(String(error)));
    page.on("console", (message) => {
      // Requests fail while the server is away.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text()))
        page.faults.push(message.text());
    });
    page.on(
      "request",
      (one) => new URL(one.url()).hostname === "127.0.0.1" || page.faults.push(`request to ${one.url()}`),
    );
    return page;
  }

  async close() {
    await this.browser?.close();
    this.pages?.close();
    this.pages?.closeAllConnections();
    for (const child of this.#children) await this.stop(child);
    if (this.mountpoint) spawnSync("umount", ["-l", this.mountpoint]);
    if (this.folder) rmSync(this.folder, { recursive: true, force: true });
  }
}

function status(mountpoint, name) {
  try {
    return JSON.parse(readFileSync(join(mountpoint, name, "status.json"), "utf8"));
  } catch {
    return null;
  }
}

async function freePort() {
  const socket = createSocket();
  await new Promise((resolve) => socket.listen(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}
