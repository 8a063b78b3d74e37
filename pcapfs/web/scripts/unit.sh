#!/bin/sh
# Runs the unit tests of the parts that need no browser. The compiler turns them into JavaScript,
# as node 20 does not read TypeScript.
set -eu
cd "$(dirname -- "$0")/.."
rm -rf .test
npx --no-install tsc -p tsconfig.test.json
node --test --test-reporter=dot .test/test/
