// The notice that comes with the built files: the licences of the packages they have code of.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** Packages with code in the built files, and the file of each that has its licence. */
const SHIPPED = { "solid-js": "LICENSE" };
const ALLOWED = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"];

const read = (path) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), "utf8");

export function notice() {
  const page = JSON.parse(read("package.json"));
  const names = Object.keys(page.dependencies);
  if (names.join() !== Object.keys(SHIPPED).join()) {
    throw new Error(`scripts/notice.mjs lists ${Object.keys(SHIPPED)}, package.json ${names}`);
  }
  const parts = names.map((name) => {
    const { version, license } = JSON.parse(read(`node_modules/${name}/package.json`));
    if (!ALLOWED.includes(license)) throw new Error(`${name}: its licence ${license} is not allowed`);
    return `${name} ${version}, ${license}\n\n${read(`node_modules/${name}/${SHIPPED[name]}`).trim()}\n`;
  });
  return `The page of pcapfs web has code of these packages.\n\n${parts.join("\n")}`;
}
