// Requests to the server, with time limits, error messages and the API key.

import { byId } from "./dom.js";

const TIMEOUT_MS = 20_000;
const MODEL_TIMEOUT_MS = 120_000;
export const SLOW_SYSTEMS = ["rephrase", "teacher"]; // wait for a language model before they search

export class RequestError extends Error {
  constructor(title, message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { title, status, code, retryAfter });
  }
}

export const server = { systems: {}, max_k: 0, max_upload_bytes: 0, keys_required: false, names: [] };

// The name of this browser, the same on every visit, so that an experiment assigns it to one system.
function clientId() {
  let id = localStorage.getItem("kallos-client");
  if (!id) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("kallos-client", id);
  }
  return id;
}

function headers(more) {
  const key = sessionStorage.getItem("kallos-key");
  return { "X-Kallos-Client": clientId(), ...(key && { Authorization: `Bearer ${key}` }), ...more };
}

// ---- the key

let keyDialog = null; // a promise: all refused requests wait for one dialog

function askForKey(refused) {
  keyDialog ??= new Promise((resolve, reject) => {
    const dialog = byId("key");
    byId("key-wrong").hidden = !refused;
    byId("key-value").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      keyDialog = null;
      const value = byId("key-value").value.trim();
      if (dialog.returnValue === "use" && value) resolve(sessionStorage.setItem("kallos-key", value));
      else reject(new RequestError("A key is required", "This server requires an API key."));
    }, { once: true });
    dialog.showModal();
  });
  return keyDialog;
}

// ---- requests

async function fetchOnce(path, { signal, timeout = TIMEOUT_MS, ...options }) {
  const timedOut = new AbortController();
  const timer = setTimeout(() => timedOut.abort(), timeout);
  try {
    const signals = signal ? [signal, timedOut.signal] : [timedOut.signal];
    const response = await fetch(path, { ...options, headers: headers(options.headers), signal: AbortSignal.any(signals) });
    return { response, content: await response.blob() };
  } catch (error) {
    if (signal?.aborted) throw error;
    if (timedOut.signal.aborted) throw new RequestError("The server is slow", `No response within ${timeout / 1000} seconds.`);
    throw new RequestError("The server does not respond", "Is it still running? Try again.");
  } finally {
    clearTimeout(timer);
  }
}

async function send(path, options) {
  if (keyDialog) await keyDialog;
  const key = sessionStorage.getItem("kallos-key");
  if (server.keys_required && !key) await askForKey(false);
  const { response, content } = await fetchOnce(path, options);
  if (response.ok) return content;
  if (response.status === 401) {
    // Another request may have asked for a new key since this one was sent.
    if (keyDialog || sessionStorage.getItem("kallos-key") === key) await askForKey(Boolean(key));
    return send(path, options);
  }
  const error = await content.text().then(JSON.parse).then((body) => body.error).catch(() => null);
  throw new RequestError(
    response.status < 500 ? "The request was refused" : "The server failed",
    error?.message ?? `It returned status ${response.status}.`,
    { status: response.status, code: error?.code, retryAfter: Number(response.headers.get("Retry-After")) },
  );
}

export async function call(path, options = {}) {
  const text = await (await send(path, options)).text();
  try {
    return JSON.parse(text);
  } catch {
    throw new RequestError("The server failed", "Its response cannot be read.");
  }
}

const post = (path, body, options) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });

export const search = (body, signal) =>
  post("v1/search", body, { signal, timeout: SLOW_SYSTEMS.includes(body.system) ? MODEL_TIMEOUT_MS : TIMEOUT_MS });

export const feedback = (event, options) => post("v1/feedback", event, options);

export const blob = (path, signal) => send(path, { signal });

export async function connect() {
  Object.assign(server, await call("healthz"));
  server.names = Object.keys(server.systems);
  // openapi.json lists every system that a search accepts, also those that /healthz does not list because they have no encoder of their own.
  const { content } = await fetchOnce("openapi.json", {});
  const document = await content.text().then(JSON.parse).catch(() => null);
  const { enum: names, const: only } = document?.components?.schemas.SearchRequest.properties.system ?? {};
  if (names ?? only) server.names = names ?? [only];
}
