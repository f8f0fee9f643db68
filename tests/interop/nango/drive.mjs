// Drives a running server with the unchanged client library, call by call, and checks every answer.
//
//   node drive.mjs
//
// Prints `port N` first: a receiver of webhooks listens there, and the server is to send its own to it. Then reads one line of
// JSON from stdin: {url, apiKey, signingKey, source, connections, model, sync, records, functions, hook, mirrored}. Of `functions` the first
// is a sync in TypeScript that polls, the second one takes webhooks at `hook` as well. Prints one line per call and `done` at the
// end; anything unexpected ends it with 1.

import assert from "node:assert/strict";
import http from "node:http";
import readline from "node:readline";
import { Nango } from "@nangohq/node";

const PATIENCE_MS = 90_000;
const LOOK_AGAIN_MS = 50;

const received = [];
const receiver = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    received.push({ headers: request.headers, body: Buffer.concat(parts).toString("utf8") });
    response.writeHead(204).end();
  });
});
await new Promise((listening) => receiver.listen(0, "127.0.0.1", listening));
console.log(`port ${receiver.address().port}`);

const line = (await readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()).value;
const { url, apiKey, signingKey, source, connections, model, sync, records, functions, hook, mirrored } = JSON.parse(line);
const [connectionId, other] = connections;
const nango = new Nango({ host: url, apiKey, webhookSigningKey: signingKey });
const at = { providerConfigKey: source, connectionId, model };

async function until(what, look) {
  const began = Date.now();
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() - began < PATIENCE_MS, `${what}: nothing within ${PATIENCE_MS} ms`);
    await new Promise((again) => setTimeout(again, LOOK_AGAIN_MS));
  }
}

async function step(name, work) {
  await work();
  console.log(`ok ${name}`);
}

async function refused(call, status, code) {
  const error = await call().then(() => null, (why) => why);
  assert.ok(error, `expected ${code}, but it was answered`);
  assert.equal(error.response?.status, status, error.message);
  assert.equal(error.response.data.error.code, code);
}

async function all(question) {
  const rows = [];
  let cursor = null;
  let pages = 0;
  do {
    const page = await nango.listRecords({ ...at, ...question, cursor });
    rows.push(...page.records);
    cursor = page.next_cursor;
    pages += 1;
  } while (cursor !== null);
  return { rows, pages };
}

await step("syncStatus", async () => {
  const ended = (status) => status.syncs.length === 2 && status.syncs.every((one) => one.status === "SUCCESS");
  const status = await until("first runs", async () => {
    const status = await nango.syncStatus(source, "*");
    return ended(status) && status;
  });
  const one = status.syncs.find((one) => one.connection_id === connectionId);
  assert.equal(one.name, sync);
  assert.equal(one.type, "INITIAL");
  assert.deepEqual(one.latestResult, { [model]: { added: records, updated: 0, deleted: 0 } });
  assert.deepEqual(one.recordCount, { [model]: records });
  assert.ok(!Number.isNaN(Date.parse(one.finishedAt)) && !Number.isNaN(Date.parse(one.nextScheduledSyncAt)));
  assert.equal((await nango.syncStatus(source, [sync], connectionId)).syncs.length, 1);
  assert.equal((await nango.syncStatus(source, [{ name: sync, variant: "base" }], connectionId)).syncs.length, 1);
  await refused(() => nango.syncStatus(source, ["none"], connectionId), 400, "unknown_sync");
});

let everything;
await step("listRecords, page by page", async () => {
  const { rows, pages } = await all({ limit: 100 });
  assert.equal(rows.length, records);
  assert.equal(pages, Math.ceil(records / 100), "no empty page at the end");
  assert.equal(new Set(rows.map((row) => row.id)).size, records);
  for (const row of rows) {
    const about = row._nango_metadata;
    assert.equal(typeof row.id, "string");
    assert.equal(about.last_action, "ADDED");
    assert.deepEqual([about.deleted_at, about.pruned_at], [null, null]);
    assert.match(about.last_modified_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$/);
  }
  everything = rows;
});

await step("listRecords, every parameter", async () => {
  const count = async (question) => (await all({ limit: 1000, ...question })).rows.length;
  const hour = 3_600_000;
  assert.equal(await count({ filter: "added" }), records);
  assert.equal(await count({ filter: "UPDATED,deleted" }), 0);
  assert.equal(await count({ variant: "base" }), records);
  assert.equal(await count({ modifiedAfter: new Date(Date.now() - hour).toISOString() }), records);
  assert.equal(await count({ modifiedAfter: new Date(Date.now() + hour).toISOString() }), 0);
  assert.equal(await count({ delta: new Date(Date.now() - hour).toISOString() }), records);
  const [first, second] = everything;
  const named = await nango.listRecords({ ...at, ids: [second.id, first.id, "nobody"] });
  assert.deepEqual(named.records, [first, second]);
  const last = everything.at(-1)._nango_metadata.cursor;
  assert.deepEqual(await nango.listRecords({ ...at, cursor: last }), { records: [], next_cursor: null });
  await refused(() => nango.listRecords({ ...at, cursor: "nonsense" }), 400, "invalid_query_params");
  await refused(() => nango.listRecords({ ...at, connectionId: "nobody" }), 400, "unknown_connection");
});

await step("verifyIncomingWebhookRequest", async () => {
  const mine = (one) => JSON.parse(one.body).connectionId === connectionId;
  const { body, headers } = await until("a webhook", () => received.find(mine));
  assert.equal(nango.verifyIncomingWebhookRequest(body, headers), true);
  assert.equal(nango.verifyIncomingWebhookRequest(`${body} `, headers), false);
  const stranger = new Nango({ host: url, apiKey, webhookSigningKey: "another" });
  assert.equal(stranger.verifyIncomingWebhookRequest(body, headers), false);
  const told = JSON.parse(body);
  assert.deepEqual([told.from, told.type, told.success], ["nango", "sync", true]);
  assert.deepEqual([told.providerConfigKey, told.syncName, told.model], [source, sync, model]);
  assert.equal(told.syncType, "INITIAL");
  assert.deepEqual(told.responseResults, { added: records, updated: 0, deleted: 0 });
});

// What a product does: a signed webhook comes, and the records that it tells of are read.
async function heard(what, { source, connectionId, sync, model }, matches) {
  const { body, headers } = await until(what, () =>
    received.find(({ body }) => {
      const told = JSON.parse(body);
      return told.providerConfigKey === source && told.connectionId === connectionId && matches(told);
    }),
  );
  assert.equal(nango.verifyIncomingWebhookRequest(body, headers), true);
  assert.equal(nango.verifyIncomingWebhookRequest(body.replace('"success":true', '"success":false'), headers), false);
  const told = JSON.parse(body);
  assert.deepEqual([told.from, told.type, told.success, told.syncName, told.model], ["nango", "sync", true, sync, model]);
  const { modifiedAfter } = told;
  const rows = [];
  let { cursor } = told;
  do {
    const page = await nango.listRecords({ providerConfigKey: source, connectionId, model, modifiedAfter, limit: 100, cursor });
    rows.push(...page.records);
    cursor = page.next_cursor;
  } while (cursor !== null);
  return { told, rows };
}

await step("a sync in TypeScript: its signed webhook, and the records it tells of", async () => {
  const [polling] = functions;
  const { told, rows } = await heard("the webhook of a function", polling, (told) => told.syncType === "INITIAL");
  assert.deepEqual(told.responseResults, { added: polling.records, updated: 0, deleted: 0 });
  assert.equal(rows.length, polling.records);
  assert.equal(rows.find((row) => row.id === "00300000007").last_name, "Name 7");
  assert.ok(rows.every((row) => row._nango_metadata.last_action === "ADDED"));
});

await step("a sync in TypeScript in real time: from the provider's webhook to its own", async () => {
  const [, both] = functions;
  const { rows } = await heard("the first listing", both, (told) => told.syncType === "INITIAL");
  assert.equal(rows.length, both.records);
  const event = { portalId: 7, subscriptionType: "contact.propertyChange", objectId: 5, propertyName: "email" };
  const sent = JSON.stringify([{ ...event, propertyValue: "five@example.com" }]);
  const answer = await fetch(hook, { method: "POST", headers: { "content-type": "application/json" }, body: sent });
  assert.equal(answer.status, 200);
  const { told, rows: changed } = await heard("what it made of it", both, (told) => told.syncType === "WEBHOOK");
  assert.deepEqual(told.responseResults, { added: 0, updated: 1, deleted: 0 });
  assert.deepEqual(changed.map((row) => [row.id, row.email]), [["5", "five@example.com"]]);
  assert.equal(changed[0]._nango_metadata.last_action, "UPDATED");
});

await step("listConnections, getConnection", async () => {
  const listed = (await nango.listConnections()).connections;
  const all = [...connections, ...functions.map((one) => one.connectionId), "acme"];
  assert.deepEqual(listed.map((one) => one.connection_id).sort(), all.sort());
  const ids = async (question) => (await nango.listConnections(question)).connections.map((one) => one.connection_id);
  assert.deepEqual(await ids({ connectionId }), [connectionId]);
  assert.deepEqual(await ids({ integrationId: [source, "none"], limit: 1, page: 5 }), []);
  assert.deepEqual(await ids({ userId: "nobody" }), []);
  assert.deepEqual(await ids({ tags: { team: "nobody" } }), []);
  assert.equal((await nango.listConnections(undefined, connectionId.slice(0, 3))).connections.length >= 1, true);
  const one = await nango.getConnection(source, connectionId);
  assert.deepEqual([one.connection_id, one.provider_config_key, one.errors], [connectionId, source, []]);
  assert.equal(one.credentials.type, "API_KEY");
  assert.ok(one.credentials.apiKey.length > 0);
  assert.equal(typeof one.id, "number");
  await refused(() => nango.getConnection(source, "nobody"), 400, "unknown_connection");
});

await step("getMetadata, setMetadata, updateMetadata", async () => {
  await nango.setMetadata(source, connectionId, { plan: "pro", region: { name: "eu" } });
  const echo = await nango.updateMetadata(source, connectionId, { region: { zone: 1 } });
  assert.equal(echo.data.connection_id, connectionId);
  assert.deepEqual(await nango.getMetadata(source, connectionId), { plan: "pro", region: { zone: 1 } });
  await nango.updateMetadata(source, connections, { both: true });
  assert.equal((await nango.getMetadata(source, other)).both, true);
  await refused(() => nango.setMetadata(source, "nobody", { a: 1 }), 404, "unknown_connection");
});

const statusOf = async () => (await nango.syncStatus(source, [sync], connectionId)).syncs[0];
const rest = () => until("the run's end", async () => (await statusOf()).status === "SUCCESS");

await step("pauseSync, startSync", async () => {
  assert.deepEqual((await nango.pauseSync(source, [sync], connectionId)).data, { success: true });
  assert.equal((await statusOf()).status, "PAUSED");
  assert.deepEqual((await nango.startSync(source, [{ name: sync, variant: "base" }], connectionId)).data, { success: true });
  await rest();
});

await step("triggerSync", async () => {
  const before = (await statusOf()).finishedAt;
  assert.deepEqual((await nango.triggerSync(source, [sync], connectionId)).data, { success: true });
  await until("a new run", async () => {
    const now = await statusOf();
    return now.finishedAt !== before && now.status === "SUCCESS";
  });
  for (const how of [{ reset: true }, { reset: true, emptyCache: false }, "incremental", "full_refresh", true, false]) {
    assert.deepEqual((await nango.triggerSync(source, [sync], connectionId, how)).data, { success: true });
  }
  await rest();
  await refused(() => nango.triggerSync(source, ["none"], connectionId), 400, "unknown_sync");
});

await step("updateSyncConnectionFrequency", async () => {
  const usual = (await statusOf()).frequency;
  const change = (frequency) => nango.updateSyncConnectionFrequency(source, sync, connectionId, frequency);
  assert.deepEqual(await change("every 5m"), { frequency: "every 5m" });
  assert.equal((await statusOf()).frequency, "every 5m");
  assert.deepEqual(await change(null), { frequency: usual });
  await refused(() => change("often"), 400, "invalid_body");
});

await step("createSyncVariant, deleteSyncVariant", async () => {
  const variant = { provider_config_key: source, connection_id: connectionId, name: sync, variant: "second" };
  const made = await nango.createSyncVariant(variant);
  assert.deepEqual([made.name, made.variant], [sync, "second"]);
  await refused(() => nango.createSyncVariant(variant), 400, "sync_variant_already_exists");
  assert.deepEqual(await nango.deleteSyncVariant(variant), { success: true });
});

await step("pruneRecords", async () => {
  const [first, second] = (await nango.listRecords({ ...at, limit: 2 })).records;
  const prune = { ...at, untilCursor: second._nango_metadata.cursor };
  assert.deepEqual(await nango.pruneRecords({ ...prune, limit: 1 }), { count: 1, has_more: true });
  assert.deepEqual(await nango.pruneRecords({ ...prune, variant: "base" }), { count: 1, has_more: false });
  const [pruned] = (await nango.listRecords({ ...at, ids: [first.id] })).records;
  assert.deepEqual(Object.keys(pruned).sort(), ["_nango_metadata", "id"]);
  assert.ok(pruned._nango_metadata.pruned_at);
});

await step("triggerAction", async () => {
  const echo = await nango.triggerAction(source, connectionId, "greet", { name: "Ada" });
  assert.deepEqual(echo, { text: "hello Ada", connection: connectionId });
  await refused(() => nango.triggerAction(source, connectionId, "greet", {}), 400, "invalid_action_input");
  await refused(() => nango.triggerAction(source, connectionId, "none", {}), 404, "unknown_action");
  await refused(() => nango.triggerAction(source, "nobody", "greet", { name: "Ada" }), 400, "unknown_connection");
  const thrown = await nango.triggerAction(source, connectionId, "greet", { name: "nobody" }).catch((why) => why);
  assert.equal(thrown.response.status, 424);
  assert.equal(thrown.response.data.error.code, "action_script_runtime_error");
  assert.deepEqual(thrown.response.data.error.payload, { message: "nobody is there", name: "nobody", tries: [1, 2] });
});

await step("triggerActionAsync, getAsyncActionResult", async () => {
  const { id, statusUrl } = await nango.triggerActionAsync(source, connectionId, "greet", { name: "Béla" });
  assert.equal(statusUrl, `/action/${id}`);
  const result = (of) => nango.getAsyncActionResult(of).catch((why) => (why.response?.status === 404 ? null : Promise.reject(why)));
  assert.deepEqual(await until("its output", () => result({ id })), { text: "hello Béla", connection: connectionId });
  assert.deepEqual(await nango.getAsyncActionResult({ statusUrl }), { text: "hello Béla", connection: connectionId });
  const failed = await nango.triggerActionAsync(source, connectionId, "greet", { name: "nobody" });
  const why = await until("its error", () => result({ id: failed.id }).catch((error) => error));
  assert.equal(why.response.data.error.payload.name, "nobody");
  await refused(() => nango.getAsyncActionResult({ id: "nothing" }), 404, "not_found");
});

await step("proxy, get, post, put, patch, delete", async () => {
  const { source, secret } = mirrored;
  const there = { providerConfigKey: source, connectionId: "acme" };
  const answer = await nango.get({ ...there, endpoint: "/things", params: { a: "1 2", b: 3 }, headers: { "X-Own": "x" } });
  assert.deepEqual([answer.status, answer.data.method, answer.data.target], [200, "GET", "/things?a=1+2&b=3"]);
  for (const method of ["post", "put", "patch", "delete"]) {
    const { data } = await nango[method]({ ...there, endpoint: "/things", data: { name: "Béla" }, retries: 1 });
    assert.deepEqual([data.method, data.bytes], [method.toUpperCase(), Buffer.byteLength('{"name":"Béla"}')]);
  }
  for (const method of ["GET", "PROPFIND", "REPORT"]) {
    const { data } = await nango.proxy({ ...there, method, endpoint: "dav", decompress: true });
    assert.deepEqual([data.method, data.target], [method, "/dav"]);
  }
  const plain = await nango.get({ ...there, endpoint: "/gzip", responseType: "text" });
  assert.equal(plain.data, "hello");
  const failed = await nango.get({ ...there, endpoint: "/status?code=418" }).catch((why) => why);
  assert.deepEqual([failed.response.status, failed.response.headers["syncline-origin"]], [418, undefined]);
  const again = await nango.get({ ...there, endpoint: "/flaky?code=423&times=1", retries: 2, retryOn: [423] });
  assert.equal(again.data, "at last");
  await refused(() => nango.get({ ...there, endpoint: "/a", baseUrlOverride: "https://evil.example" }), 403, "origin_not_allowed");
  await refused(() => nango.get({ ...there, endpoint: "/a", connectionId: "nobody" }), 400, "unknown_connection");
  assert.ok(!JSON.stringify(failed.response.data ?? "").includes(secret));
});

await step("listProviders, getProvider, getProviderTemplates", async () => {
  const { data } = await nango.listProviders({ search: "git" });
  assert.deepEqual(data.map((one) => [one.name, one.display_name]), [["github", "GitHub"]]);
  assert.equal((await nango.getProvider({ provider: "github" })).data.name, "github");
  assert.deepEqual(await nango.getProviderTemplates({ provider: "github" }), { data: [] });
  assert.ok((await nango.listProviders({})).data.length >= 10);
});

await step("integrations: created, listed, changed", async () => {
  const made = await nango.createIntegration({ provider: "github", unique_key: "hub", display_name: "Hub" });
  assert.deepEqual([made.data.unique_key, made.data.provider], ["hub", "github"]);
  const changed = await nango.updateIntegration({ uniqueKey: "hub" }, { display_name: "The hub" });
  assert.equal(changed.data.display_name, "The hub");
  const { configs } = await nango.listIntegrations();
  assert.ok([source, "hub"].every((key) => configs.some((one) => one.unique_key === key)));
  const shown = await nango.getIntegration({ uniqueKey: "hub" }, { include: ["webhook", "credentials"] });
  assert.equal(shown.data.display_name, "The hub");
  await refused(() => nango.createQuickstartIntegration({ provider: "github", unique_key: "q" }), 501, "not_supported");
});

await step("listFunctions, getFunction, getFunctionCode, deleteFunction", async () => {
  const { data, pagination } = await nango.listFunctions({ uniqueKey: source });
  assert.ok(data.some((one) => one.name === sync) && pagination.total === data.length);
  assert.deepEqual((await nango.getFunction({ uniqueKey: source, name: sync })).data.returns, [model]);
  assert.match((await nango.getFunctionCode({ uniqueKey: source, name: sync })).code, new RegExp(model));
  await refused(() => nango.deleteFunction({ uniqueKey: source, name: sync }, { type: "sync" }), 409, "defined_in_file");
});

await step("getScriptsConfig, getEnvironmentVariables", async () => {
  const config = await nango.getScriptsConfig();
  assert.ok(config.find((one) => one.providerConfigKey === source).syncs.some((one) => one.name === sync));
  assert.deepEqual(await nango.getEnvironmentVariables(), []);
});

await step("createConnectSession, patchConnection, createReconnectSession, deleteConnection", async () => {
  const session = { end_user: { id: "ann", email: "ann@example.com" }, allowed_integrations: ["hub"] };
  const { data } = await nango.createConnectSession(session);
  assert.ok(data.connect_link.endsWith(data.token) && Date.parse(data.expires_at) > Date.now());
  const entered = `${url}/api-auth/api-key/hub?connect_session_token=${data.token}`;
  const before = await fetch(entered, { method: "POST", body: "{}", headers: { "content-type": "application/json" } });
  const { connectionId } = await before.json();
  assert.equal(before.status, 200, connectionId);
  const found = await nango.listConnections({ userId: "ann" });
  assert.deepEqual(found.connections.map((one) => one.connection_id), [connectionId]);
  const there = { connectionId, provider_config_key: "hub" };
  assert.deepEqual(await nango.patchConnection(there, { tags: { plan: "pro" } }), { success: true });
  assert.deepEqual((await nango.getConnection("hub", connectionId)).tags, { plan: "pro" });
  assert.equal(typeof (await nango.getToken("hub", connectionId)), "object");
  assert.equal(await nango.getRawTokenResponse("hub", connectionId), undefined);
  const again = await nango.createReconnectSession({ connection_id: connectionId, integration_id: "hub" });
  assert.notEqual(again.data.token, data.token);
  assert.deepEqual((await nango.deleteConnection("hub", connectionId)).data, { success: true });
  assert.deepEqual((await nango.deleteIntegration("hub")).data, { success: true });
});

await step("keys nobody has", async () => {
  const stranger = new Nango({ host: `${url}/`, apiKey: "0123456789abcdef0123456789abcdef" });
  await refused(() => stranger.listRecords(at), 401, "unknown_account");
});

console.log("done");
receiver.close();
receiver.closeAllConnections();
process.exit(0);
