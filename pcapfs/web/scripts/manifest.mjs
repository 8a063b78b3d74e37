// The manifest dist/MANIFEST says which sources the built files were made of. A line for each
// source and each built file: the SHA-256 of the file, two spaces, its path from this folder.
//
// `node scripts/manifest.mjs --check` compares it with the files. A unit test of the crate `pcapfs`
// does the same without node.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("..", import.meta.url));
const manifest = join(here, "dist/MANIFEST");

/** Everything that the built files depend on; folders with all that is in them. */
const SOURCES = [
  "index.html",
  "package-lock.json",
  "package.json",
  "scripts",
  "src",
  "tsconfig.json",
  "vite.config.ts",
];

function files(path) {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => files(join(path, name)));
}

function lines() {
  return [...SOURCES, "dist"]
    .flatMap((name) => files(join(here, name)))
    .filter((path) => path !== manifest)
    .map((path) => [relative(here, path), path])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, path]) => `${createHash("sha256").update(readFileSync(path)).digest("hex")}  ${name}\n`)
    .join("");
}

export function writeManifest() {
  writeFileSync(manifest, lines());
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] !== "--check") {
    console.error("usage: manifest.mjs --check");
    process.exit(2);
  }
  const is = new Set(lines().split("\n"));
  const was = new Set(readFileSync(manifest, "utf8").split("\n"));
  const changed = new Set(
    [...is, ...was].filter((line) => !is.has(line) || !was.has(line)).map((line) => line.slice(66)),
  );
  for (const name of changed) console.error(`${name}: not as in dist/MANIFEST`);
  if (changed.size > 0) {
    console.error("the built files are not the build of these sources; run `make web`");
    process.exit(1);
  }
}
