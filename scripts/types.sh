#!/usr/bin/env bash
# Checks the declarations for editors (runtime/modules/*.d.ts) with the TypeScript compiler: the examples, the fixtures and
# runtime/tests/types/right.ts have to pass, and each line of wrong.ts that is marked has to be refused. Needs Node and npm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -d functions/node_modules ] || npm install --prefix functions --silent --no-audit --no-fund --no-package-lock
npm --prefix functions run --silent check
functions/node_modules/.bin/tsc -p runtime/tests/types
echo "types: right.ts passes, wrong.ts is refused"
