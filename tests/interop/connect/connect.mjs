// Connects accounts in a browser as people do: with the unchanged client library on a page of a customer's app, and on the connect
// page, framed and alone.
//
//   node connect.mjs
//
// Prints `port N` first: the customer's app is served there. Then reads one line of JSON from stdin: {url, browser, sessions}, where
// `sessions` is a list of tokens, each for one attempt. Prints one line per step and `done` at the end; anything unexpected ends it
// with 1.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";
import { chromium } from "playwright-core";

const PATIENCE_MS = 30_000;
const require = createRequire(import.meta.url);
const library = path.dirname(require.resolve("@nangohq/frontend"));
const axe = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const PAGE = `<!doctype html><html lang="en"><title>The app</title><h1>The app</h1><script type="module">
import Nango from "/library/index.js";
window.Nango = Nango;
window.ready = true;
</script></html>`;

const app = http.createServer(async (request, response) => {
  const file = /^\/library\/([a-zA-Z]+\.js)$/.exec(request.url)?.[1];
  const [type, body] = file
    ? ["text/javascript", await readFile(path.join(library, file))]
    : ["text/html; charset=utf-8", PAGE];
  response.writeHead(200, { "content-type": type }).end(body);
});
await new Promise((listening) => app.listen(0, "127.0.0.1", listening));
const appUrl = `http://127.0.0.1:${app.address().port}`;
console.log(`port ${app.address().port}`);

const line = (await readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()).value;
const { url, browser: executablePath, sessions } = JSON.parse(line);
const next = () => sessions.shift() ?? assert.fail("a session is missing");

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });

async function step(name, work) {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await work(page, context);
  assert.deepEqual(problems, [], name);
  await context.close();
  console.log(`ok ${name}`);
}

async function accessible(frame, what) {
  await frame.evaluate(axe);
  const found = await frame.evaluate(() => window.axe.run(document));
  const told = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(told, [], what);
}

// The sign-in of the provider, in the window that was opened for it.
async function allow(context, click, go = "yes") {
  const opened = context.waitForEvent("page");
  await click();
  const popup = await opened;
  await popup.locator(`button[value="${go}"]`).click();
  return popup;
}

async function withLibrary(page, token, key, options) {
  await page.goto(appUrl);
  await page.waitForFunction(() => window.ready);
  await page.evaluate(
    ([host, connectSessionToken, key, options]) => {
      window.result = new window.Nango({ host, connectSessionToken }).auth(key, options).then(
        (made) => made,
        (error) => ({ error: error.type, message: error.message }),
      );
      return null;
    },
    [url, token, key, options],
  );
}

await step("auth() by OAuth", async (page, context) => {
  await allow(context, () => withLibrary(page, next(), "oidc"));
  const made = await page.evaluate(() => window.result);
  assert.equal(made.providerConfigKey, "oidc", JSON.stringify(made));
  assert.match(made.connectionId, /^[0-9a-f-]{36}$/);
});

await step("auth() that the person refuses", async (page, context) => {
  await allow(context, () => withLibrary(page, next(), "oidc"), "no");
  const made = await page.evaluate(() => window.result);
  assert.deepEqual(made, { error: "access_denied", message: "the user refused" });
});

await step("auth() by key and by password", async (page) => {
  const ways = [
    ["key", { credentials: { apiKey: "let-me-in" } }],
    ["basic", { credentials: { username: "ann", password: "let-me-in" } }],
  ];
  const token = next();
  for (const [key, options] of ways) {
    await withLibrary(page, token, key, options);
    const made = await page.evaluate(() => window.result);
    assert.equal(made.providerConfigKey, key, JSON.stringify(made));
  }
  await withLibrary(page, next(), "key", { credentials: { apiKey: "stolen" } });
  assert.equal((await page.evaluate(() => window.result)).error, "connection_test_failed");
});

for (const theme of ["light", "dark"]) {
  await step(`openConnectUI(), ${theme}`, async (page, context) => {
    await page.goto(appUrl);
    await page.waitForFunction(() => window.ready);
    await page.evaluate(
      ([host, sessionToken, theme]) => {
        window.events = [];
        const options = { baseURL: `${host}/connect`, apiURL: host, sessionToken, themeOverride: theme };
        new window.Nango({ host, connectSessionToken: sessionToken }).openConnectUI({
          ...options,
          onEvent: (event) => window.events.push(event),
        });
      },
      [url, next(), theme],
    );
    const frame = async () => (await page.locator("#connect-ui").elementHandle()).contentFrame();
    const ui = page.frameLocator("#connect-ui");
    await ui.getByRole("link", { name: "With a key" }).waitFor();
    await accessible(await frame(), "the choice");
    await ui.getByRole("link", { name: "With a key" }).click();
    await ui.getByLabel("API key").fill("stolen");
    await accessible(await frame(), "the form");
    await ui.getByRole("button", { name: "Connect" }).click();
    await ui.getByRole("alert").waitFor();
    await ui.getByLabel("API key").fill("let-me-in");
    await ui.getByRole("button", { name: "Connect" }).click();
    await ui.getByText("Your account is connected.").waitFor();
    await accessible(await frame(), "the end");
    await ui.getByRole("button", { name: "Close" }).click();
    await page.locator("#connect-ui").waitFor({ state: "detached" });
    const events = await page.evaluate(() => window.events);
    assert.deepEqual(events.map((event) => event.type), ["ready", "error", "connect", "close"]);
    assert.equal(events[1].payload.errorType, "connection_test_failed");
    assert.equal(events[2].payload.providerConfigKey, "key");
  });
}

await step("openConnectUI() by OAuth", async (page, context) => {
  await page.goto(appUrl);
  await page.waitForFunction(() => window.ready);
  await page.evaluate(
    ([host, sessionToken]) => {
      window.events = [];
      const onEvent = (event) => window.events.push(event);
      const options = { baseURL: `${host}/connect`, apiURL: host, sessionToken, onEvent };
      new window.Nango({ host, connectSessionToken: sessionToken }).openConnectUI(options);
    },
    [url, next()],
  );
  const ui = page.frameLocator("#connect-ui");
  await ui.getByRole("link", { name: "With a sign-in" }).click();
  await allow(context, () => ui.getByRole("button", { name: "Connect" }).click());
  await ui.getByText("Your account is connected.").waitFor();
  const events = await page.evaluate(() => window.events);
  assert.deepEqual(events.map((event) => event.type), ["ready", "connect"]);
});

await step("the link alone, in German", async (page, context) => {
  await page.goto(`${url}/connect/?session_token=${next()}&lang=de&integration=oidc`);
  const popup = await allow(context, () => page.getByRole("button", { name: "Verbinden" }).click());
  await page.getByText("Ihr Konto ist verbunden.").waitFor();
  if (!popup.isClosed()) await popup.waitForEvent("close");
});

await browser.close();
app.close();
console.log("done");
// Connections that browsers keep alive would keep this program alive as well.
process.exit(0);
