// Posts GitHub's recorded webhooks to one URL, signed as GitHub signs, and prints what was sent and answered.
//
//   node send.mjs URL SECRET
//
// In order: every recorded `issues` event, two other kinds, one `issues` event whose body was changed after signing, and a
// last one about an issue of its own, LAST_ID, which shows up once all others have been worked through.
// One line of JSON for each: {kind, tampered, status, payload}. Ends with 1 if the receiver cannot be reached.

import { createRequire } from "node:module";
import { sign } from "@octokit/webhooks-methods";

const KINDS = ["issues", "star", "label"];
const LAST_ID = 1;

const [url, secret] = process.argv.slice(2);
if (!url || !secret) {
  console.error("usage: node send.mjs URL SECRET");
  process.exit(2);
}

const recorded = createRequire(import.meta.url)("@octokit/webhooks-examples");
const sent = KINDS.flatMap((name) => {
  const kind = recorded.find((one) => one.name === name);
  if (!kind) throw new Error(`the recorded examples have no kind '${name}'`);
  return kind.examples.map((payload) => ({ kind: name, payload, tampered: false }));
});
const [first] = sent;
sent.push({ ...first, tampered: true });
sent.push({ ...first, payload: { ...first.payload, issue: { ...first.payload.issue, id: LAST_ID } } });

let delivery = 0;
for (const { kind, payload, tampered } of sent) {
  const body = JSON.stringify(payload);
  const signature = await sign(secret, body);
  delivery += 1;
  const answer = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "user-agent": "GitHub-Hookshot/recorded",
      "x-github-event": kind,
      "x-github-delivery": `00000000-0000-4000-8000-${String(delivery).padStart(12, "0")}`,
      "x-hub-signature-256": signature,
    },
    body: tampered ? body.replace(/"title":"[^"]*"/, '"title":"not what was signed"') : body,
    signal: AbortSignal.timeout(10_000),
  });
  await answer.arrayBuffer();
  console.log(JSON.stringify({ kind, tampered, status: answer.status, payload }));
}
