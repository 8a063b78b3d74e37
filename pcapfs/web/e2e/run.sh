#!/bin/sh
# Runs the tests of the page in Chromium, against the real daemon and the real server. As root, since
# they capture from the loopback interface. What is missing is said, and is a failure only with
# PCAPFS_REQUIRE_ALL=1. With the argument `measure`, measures the page instead.
set -eu
cd "$(dirname -- "$0")/.."

PCAPFS=${PCAPFS:-${CARGO_TARGET_DIR:-../../target}/debug/pcapfs}
CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}

skip() {
    echo "e2e: skipped: $1"
    [ "${PCAPFS_REQUIRE_ALL-}" != 1 ] || exit 1
    exit 0
}

[ -n "$CHROMIUM" ] || skip "no chromium (apt-get install chromium)"
[ -d node_modules/playwright-core ] || skip "no node_modules (npm ci)"
[ -x "$PCAPFS" ] || skip "no $PCAPFS (cargo build)"
"$PCAPFS" web --help >/dev/null 2>&1 || skip "$PCAPFS has no command web"
[ "$(id -u)" -eq 0 ] || skip "not root"

export PCAPFS CHROMIUM
[ "${1-}" != measure ] || exec node e2e/measure.mjs
exec node --test --test-concurrency=1 --test-reporter=spec e2e/
