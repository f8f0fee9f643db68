#!/usr/bin/env bash
# Makes runtime/modules/zod.js: the package zod as one ES module, with the English locale alone. Functions get it when they
# import 'zod'. Needs Node and npm; run it again only to raise a version.
#
# The package exports all of its 50 locales, more than half of its size; nothing in a function speaks them. Identifiers are
# shortened too: no stack trace shows these lines, and it saves 60 kB of source, 70 kB in every context and a millisecond.
set -euo pipefail

readonly ZOD=4.3.6 ESBUILD=0.28.2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
out=$root/runtime/modules/zod.js
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts "zod@$ZOD" "esbuild@$ESBUILD"
echo "export { default as en } from './en.js';" >node_modules/zod/v4/locales/index.js

{
    echo '/*'
    echo "zod $ZOD, https://zod.dev, bundled by scripts/zod.sh with esbuild $ESBUILD: the English locale only. Do not edit."
    echo
    cat node_modules/zod/LICENSE
    echo '*/'
} >zod.mjs
echo "export * from 'zod'; export { default } from 'zod';" |
    npx esbuild --bundle --minify --format=esm --target=es2023 --platform=neutral --main-fields=module,main \
        --legal-comments=none --log-level=warning >>zod.mjs

# The bundle behaves as the package: the three ways to import it, and what functions and the host lean on.
node --input-type=module <<'JS'
import assert from 'node:assert/strict';
import * as bundle from './zod.mjs';
import standard, { z } from './zod.mjs';
import * as original from 'zod';

assert.deepEqual(Object.keys(bundle), Object.keys(original));
assert.equal(standard, z);
assert.deepEqual(Object.keys(bundle.locales), ['en']);
for (const zod of [bundle, standard, z]) {
    const model = zod.object({
        id: zod.string(),
        at: zod.iso.datetime(),
        tags: zod.record(zod.string(), zod.number()),
        owner: zod.discriminatedUnion('kind', [
            zod.object({ kind: zod.literal('user'), login: zod.string() }),
            zod.object({ kind: zod.literal('team'), slug: zod.string() })
        ])
    });
    const right = { id: '1', at: '2024-05-01T10:00:00Z', tags: { a: 1 }, owner: { kind: 'team', slug: 'core' } };
    assert.deepEqual(model.safeParse(right), { success: true, data: right });
    const wrong = model.safeParse({ ...right, at: 'yesterday', owner: { kind: 'robot' } });
    assert.deepEqual(wrong.error.issues.map((issue) => issue.path.join('.')), ['at', 'owner.kind']);
    assert.match(wrong.error.message, /Invalid ISO datetime/);
    const schema = zod.toJSONSchema(model);
    assert.deepEqual([schema.type, schema.required, schema.properties.at.format], ['object', Object.keys(right), 'date-time']);
}
JS

mkdir -p "$(dirname "$out")"
mv zod.mjs "$out"
echo "zod: $ZOD, $(wc -c <"$out") bytes, $out"
