// A real authorization server with a small API behind it, for the tests of connecting accounts.
//
//   node provider.mjs
//
// Reads one line of JSON from stdin: {accessSeconds}. Prints `port N` once it listens. Whoever comes to sign in finds a page with a
// field for the account's name and a button. `POST /control/allow?uri=U` registers where the way back may lead, `GET /control/state`
// tells what was asked, `POST /control/revoke` takes back every grant, and `POST /control/delay?ms=N` makes the token endpoint slow.
// Its refresh tokens are rotated, and one that is used twice takes its whole family with it.

import http from "node:http";
import readline from "node:readline";
import Provider from "oidc-provider";

const { accessSeconds } = JSON.parse(
  (await readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()).value,
);

const state = { refreshes: 0, reuses: 0, codes: 0, refused: 0, items: {} };
let delay = 0;

const server = http.createServer();
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "app",
      client_secret: "secret-of-the-app",
      grant_types: ["authorization_code", "refresh_token"],
      redirect_uris: ["http://127.0.0.1:9/nowhere"],
      response_types: ["code"],
      token_endpoint_auth_method: "client_secret_post",
    },
    {
      client_id: "machine",
      client_secret: "secret-of-the-machine",
      grant_types: ["client_credentials"],
      redirect_uris: [],
      response_types: [],
      token_endpoint_auth_method: "client_secret_post",
    },
  ],
  claims: { openid: ["sub"] },
  scopes: ["openid", "offline_access", "items"],
  conformIdTokenClaims: false,
  cookies: { keys: ["a key of the tests"] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  pkce: { required: (_, client) => client.clientId === "app" },
  rotateRefreshToken: true,
  ttl: { AccessToken: accessSeconds, ClientCredentials: accessSeconds, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
});
const allowed = new Set();
provider.Client.prototype.redirectUriAllowed = (uri) => allowed.has(uri);
provider.on("grant.success", (context) => {
  const kind = context.oidc.params.grant_type;
  if (kind === "refresh_token") state.refreshes += 1;
  if (kind === "authorization_code") state.codes += 1;
});
provider.on("grant.error", (context, error) => {
  state.refused += 1;
  if (error.error_detail?.includes("already used")) state.reuses += 1;
});

const serve = provider.callback();
const answer = (response, status, body) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));

async function form(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return new URLSearchParams(Buffer.concat(parts).toString("utf8"));
}

// Sign-in and consent in one: an account's name, and a button.
async function interaction(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method !== "POST") {
    response.writeHead(200, { "content-type": "text/html; charset=utf-8" });
    response.end(
      `<!doctype html><html lang="en"><title>Sign in</title><main><h1>Sign in</h1><form method="post">` +
        `<label>Account <input name="login" value="ann"></label><button name="go" value="yes">Allow</button>` +
        `<button name="go" value="no">Refuse</button></form></main></html>`,
    );
    return;
  }
  const said = await form(request);
  if (said.get("go") === "no") {
    const refusal = { error: "access_denied", error_description: "the user refused" };
    await provider.interactionFinished(request, response, refusal, { mergeWithLastSubmission: false });
    return;
  }
  const { params, session } = details;
  const accountId = session?.accountId ?? said.get("login") ?? "ann";
  const grant = new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

// What a token may see: an account of a person, or the app's own.
async function api(request, response, path) {
  const token = request.headers.authorization?.replace(/^Bearer /, "");
  const found =
    token && ((await provider.AccessToken.find(token)) ?? (await provider.ClientCredentials.find(token)));
  const grant = found?.grantId && (await provider.Grant.find(found.grantId));
  if (!found || (found.grantId && !grant)) return answer(response, 401, { error: "invalid_token" });
  const account = found.accountId ?? found.clientId;
  if (path === "/api/me") return answer(response, 200, { account });
  state.items[account] = (state.items[account] ?? 0) + 1;
  return answer(response, 200, [1, 2, 3].map((id) => ({ id: String(id), account })));
}

const grants = new Set();
provider.on("grant.success", (context) => grants.add(context.oidc.entities.Grant?.jti));

async function control(request, response, url) {
  if (url.pathname === "/control/revoke") {
    for (const id of grants) await (await provider.Grant.find(id))?.destroy();
    for (const id of grants) {
      for (const kind of [provider.AccessToken, provider.RefreshToken]) await kind.revokeByGrantId(id);
    }
    grants.clear();
  }
  if (url.pathname === "/control/allow") allowed.add(url.searchParams.get("uri"));
  if (url.pathname === "/control/delay") delay = Number(url.searchParams.get("ms"));
  return answer(response, 200, state);
}

server.on("request", async (request, response) => {
  const url = new URL(request.url, issuer);
  try {
    if (url.pathname.startsWith("/interaction/")) return await interaction(request, response);
    if (url.pathname.startsWith("/api/")) return await api(request, response, url.pathname);
    if (url.pathname.startsWith("/control/")) return await control(request, response, url);
    if (url.pathname === "/token" && delay > 0) await new Promise((later) => setTimeout(later, delay));
    return serve(request, response);
  } catch (error) {
    answer(response, 500, { error: String(error) });
  }
});
console.log(`port ${server.address().port}`);
