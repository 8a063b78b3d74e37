// Builds the page into dist/, which is committed, so that the daemon builds without node.
// The build is deterministic: the same sources and packages give the same bytes.

import { defineConfig } from "vite";
import solid from "vite-plugin-solid";
import { notice } from "./scripts/notice.mjs";
import { writeManifest } from "./scripts/manifest.mjs";

export default defineConfig({
  base: "/",
  plugins: [
    solid(),
    {
      name: "notice",
      generateBundle() {
        this.emitFile({ type: "asset", fileName: "NOTICE.txt", source: notice() });
      },
    },
    { name: "manifest", closeBundle: writeManifest },
  ],
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    // The content security policy refuses data: URLs.
    assetsInlineLimit: 0,
    // It refuses inline scripts too, and there is one script to load.
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    // `npx vite` during development: the page from here, everything else from a running server.
    proxy: {
      "/api": process.env.PCAPFS_WEB ?? "http://127.0.0.1:8020",
      "/captures": process.env.PCAPFS_WEB ?? "http://127.0.0.1:8020",
    },
  },
});
