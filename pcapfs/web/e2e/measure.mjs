// Measures the page: its size, its first paint, and how many frames a second it draws while a list of
// 100,000 flows scrolls. `npm run measure`, as root, after a build; it needs a machine with nothing
// else to do, so it is no test. Screenshots are kept in e2e/artefacts.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { World } from "./world.mjs";

const FLOWS = 100_000;
/** Seconds that a list scrolls. */
const LASTS = 5;

const here = fileURLToPath(new URL(".", import.meta.url));
const artefacts = join(here, "artefacts");
mkdirSync(artefacts, { recursive: true });

/** A savefile with a UDP packet of each of so many flows. */
function savefile(flows) {
  const [head, packet] = [24, 16 + 14 + 20 + 8 + 4];
  const file = Buffer.alloc(head + flows * packet);
  file.writeUInt32LE(0xa1b2c3d4, 0);
  file.writeUInt16LE(2, 4);
  file.writeUInt16LE(4, 6);
  file.writeUInt32LE(65535, 16);
  file.writeUInt32LE(1, 20);
  for (let flow = 0; flow < flows; flow++) {
    let at = head + flow * packet;
    file.writeUInt32LE(1_700_000_000 + Math.floor(flow / 1000), at);
    file.writeUInt32LE((flow % 1000) * 1000, at + 4);
    file.writeUInt32LE(packet - 16, at + 8);
    file.writeUInt32LE(packet - 16, at + 12);
    at += 16;
    file.writeUInt16BE(0x0800, at + 12);
    at += 14;
    file.writeUInt8(0x45, at);
    file.writeUInt16BE(32, at + 2);
    file.writeUInt8(64, at + 8);
    file.writeUInt8(17, at + 9);
    file.writeUInt32BE(0x0a000000 + flow, at + 12);
    file.writeUInt32BE(0xc0000201, at + 16);
    at += 20;
    file.writeUInt16BE(1024 + (flow % 60_000), at);
    file.writeUInt16BE(9, at + 2);
    file.writeUInt16BE(12, at + 4);
  }
  return file;
}

/** Frames a second while an element scrolls for some seconds, and the longest time between two. */
async function frames(page, selector, lasts) {
  return page.evaluate(
    ([wanted, milliseconds]) =>
      new Promise((resolve) => {
        const list = document.querySelector(wanted);
        list.scrollTop = 0;
        const range = list.scrollHeight - list.clientHeight;
        const [start, times] = [performance.now(), []];
        const draw = (now) => {
          times.push(now);
          const share = (performance.now() - start) / milliseconds;
          if (share >= 1) {
            const gaps = times.slice(1).map((time, at) => time - times[at]);
            resolve({
              perSecond: (gaps.length * 1000) / (times.at(-1) - times[0]),
              longest: Math.max(...gaps),
            });
            return;
          }
          list.scrollTop = range * share;
          requestAnimationFrame(draw);
        };
        requestAnimationFrame(draw);
      }),
    [selector, lasts * 1000],
  );
}

const built = join(here, "../dist");
const sizes = ["", "assets"].flatMap((folder) =>
  readdirSync(join(built, folder), { withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(html|js|css|svg)$/.test(entry.name))
    .map((entry) => gzipSync(readFileSync(join(built, folder, entry.name))).length),
);
console.log(`compressed: ${(sizes.reduce((sum, size) => sum + size, 0) / 1024).toFixed(1)} KiB`);

const world = await World.open({
  mount: (folder) => {
    const path = join(folder, "many.pcap");
    writeFileSync(path, savefile(FLOWS));
    return ["-r", path];
  },
});
try {
  const paints = [];
  for (let round = 0; round < 11; round++) {
    const page = await world.page();
    await page.goto(world.url);
    await page.getByRole("link", { name: "many", exact: true }).first().waitFor();
    paints.push(
      await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime),
    );
    await page.context().close();
  }
  paints.sort((a, b) => a - b);
  const [least, median, most] = [0, 5, 10].map((at) => Math.round(paints[at]));
  console.log(`first contentful paint: ${median} ms (${least}-${most})`);
  for (const colorScheme of ["light", "dark"]) {
    const page = await world.page({ colorScheme });
    const began = performance.now();
    await page.goto(`${world.url}#/many/flows`);
    await page.getByText("100,000 flows", { exact: true }).waitFor();
    console.log(`${FLOWS} flows are in the list after ${Math.round(performance.now() - began)} ms`);
    const { perSecond, longest } = await frames(page, ".split-list .grid", LASTS);
    console.log(
      `${colorScheme}: ${perSecond.toFixed(1)} frames/s, at most ${longest.toFixed(0)} ms between two`,
    );
    await page.screenshot({ path: join(artefacts, `many-${colorScheme}.png`) });
    if (page.faults.length > 0) throw new Error(page.faults.join("\n"));
    await page.context().close();
  }
} finally {
  await world.close();
}
