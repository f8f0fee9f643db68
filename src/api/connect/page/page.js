// The connect page: takes the session's token from the page around it, sends what is entered, opens the provider's sign-in, and
// tells what came of it to whoever opened the page.
"use strict";

const { state, base, token, origins, closed, blocked, failed } = document.body.dataset;
const known = origins.split(" ").filter(Boolean);
const around = window.parent !== window ? window.parent : window.opener;
const LOOK_MS = 1000;

// Told to pages of known origins alone: the browser drops what is addressed to another one.
function tell(message) {
  if (around) for (const origin of known) around.postMessage(message, origin);
}

function withToken(path, fields) {
  const query = new URLSearchParams({ connect_session_token: token });
  for (const [name, value] of fields) if (value !== "") query.append(`params[${name}]`, value);
  return `${base}${path}?${query}`;
}

if (state === "waiting") {
  window.addEventListener("message", (event) => {
    if (event.source !== around || !known.includes(event.origin) || event.data?.type !== "session_token") return;
    const query = new URLSearchParams(location.search);
    query.set("session_token", String(event.data.sessionToken));
    location.replace(`?${query}`);
  });
  tell({ type: "ready" });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && window.parent !== window) tell({ type: "close" });
});

const form = document.getElementById("form");
if (form) {
  const [go, problem, done] = ["go", "problem", "done"].map((id) => document.getElementById(id));
  const { key, way } = form.dataset;
  let looking = 0;

  const entered = (place) =>
    [...form.querySelectorAll("input")].filter((input) => input.dataset.place === place).map((input) => [input.name, input.value]);

  const wait = () => {
    go.disabled = true;
    problem.hidden = true;
  };

  const fail = (code, message) => {
    clearInterval(looking);
    go.disabled = false;
    problem.textContent = message || failed;
    problem.hidden = false;
    tell({ type: "error", payload: { errorType: code, errorMessage: message || failed } });
  };

  const connected = (connectionId) => {
    clearInterval(looking);
    if (!done.hidden) return;
    form.hidden = true;
    done.hidden = false;
    document.getElementById("close").focus();
    tell({ type: "connect", payload: { providerConfigKey: key, connectionId, isPending: false } });
  };

  const outcome = async () => {
    const answer = await fetch(withToken("/connect/session", []), { cache: "no-store" });
    return answer.ok ? (await answer.json()).data.outcomes[key] : undefined;
  };

  const take = (found) => {
    if (found?.connection_id) connected(found.connection_id);
    else if (found?.error) fail(found.error.code, found.error.message);
    return Boolean(found);
  };

  const byForm = async () => {
    const body = JSON.stringify(Object.fromEntries(entered("credential")));
    const headers = { "content-type": "application/json" };
    const answer = await fetch(withToken(way, entered("field")), { method: "POST", headers, body });
    const said = await answer.json();
    if (answer.ok) connected(said.connectionId);
    else fail(said.error.code, said.error.message);
  };

  // The popup may be cut off from this page by the provider's policies: the server is asked as well.
  const byPopup = async () => {
    const popup = window.open(withToken(way, entered("field")), "_blank", "width=520,height=680");
    if (!popup) return fail("blocked_by_browser", blocked);
    const before = JSON.stringify(await outcome());
    let gone = 0;
    looking = setInterval(async () => {
      const found = await outcome();
      if (JSON.stringify(found) !== before && take(found)) return;
      gone = popup.closed ? gone + 1 : 0;
      if (gone > 2) fail("window_closed", closed);
    }, LOOK_MS);
  };

  new BroadcastChannel("syncline-connect").onmessage = async (event) => {
    if (event.data === key && looking) take(await outcome());
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    wait();
    const work = way.startsWith("/oauth/") ? byPopup() : byForm();
    work.catch(() => fail("unreachable", failed));
  });

  document.getElementById("close").addEventListener("click", () => {
    tell({ type: "close" });
    window.close();
  });
}
