// The end of a sign-in: wakes the connect page, if it is open beside this window, and closes the window.
"use strict";

const { integration, good } = document.body.dataset;
const GOOD_MS = 1200;

if (integration) new BroadcastChannel("syncline-connect").postMessage(integration);
document.getElementById("close").addEventListener("click", () => window.close());
if (good === "true") setTimeout(() => window.close(), GOOD_MS);
