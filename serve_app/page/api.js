// Talking to the server: time limits, refusals in its own words, the key where one is required.

import { byId } from "./dom.js";

const SLOW_MS = 20_000;
const TEACHER_MS = 120_000; // it rephrases and judges before it answers

export class Refusal extends Error {
  constructor(title, message, { status = 0, code = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { title, status, code, retryAfter });
  }
}

export const server = { systems: {}, max_k: 0, max_upload_bytes: 0, keys_required: false, names: [] };

// Who asks, the same in every visit, so that an experiment answers one person with one system.
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

let asking = null; // all requests that were refused wait for one dialog

function askForKey(refused) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = byId("key");
    byId("key-wrong").hidden = !refused;
    byId("key-value").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const value = byId("key-value").value.trim();
      if (dialog.returnValue === "use" && value) resolve(sessionStorage.setItem("kallos-key", value));
      else reject(new Refusal("A key is needed", "This server answers only those who have a key."));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// ---- requests

async function once(path, { signal, timeout = SLOW_MS, ...options }) {
  const slow = new AbortController();
  const timer = setTimeout(() => slow.abort(), timeout);
  try {
    const signals = signal ? [signal, slow.signal] : [slow.signal];
    const response = await fetch(path, { ...options, headers: headers(options.headers), signal: AbortSignal.any(signals) });
    return { response, content: await response.blob() };
  } catch (error) {
    if (signal?.aborted) throw error;
    if (slow.signal.aborted) throw new Refusal("The server is slow", `No answer within ${timeout / 1000} seconds.`);
    throw new Refusal("The server does not answer", "Is it still running? Nothing was lost; try again.");
  } finally {
    clearTimeout(timer);
  }
}

async function send(path, options) {
  if (asking) await asking;
  const key = sessionStorage.getItem("kallos-key");
  if (server.keys_required && !key) await askForKey(false);
  const { response, content } = await once(path, options);
  if (response.ok) return content;
  if (response.status === 401) {
    // Another request may have asked for a new key since this one left.
    if (asking || sessionStorage.getItem("kallos-key") === key) await askForKey(Boolean(key));
    return send(path, options);
  }
  const error = await content.text().then(JSON.parse).then((body) => body.error).catch(() => null);
  throw new Refusal(
    response.status < 500 ? "That was refused" : "The server had a problem",
    error?.message ?? `It answered with status ${response.status}.`,
    { status: response.status, code: error?.code, retryAfter: Number(response.headers.get("Retry-After")) },
  );
}

export async function call(path, options = {}) {
  const text = await (await send(path, options)).text();
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("The server had a problem", "Its answer cannot be read.");
  }
}

const post = (path, body, options) =>
  call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });

export const search = (body, signal) =>
  post("v1/search", body, { signal, timeout: body.system === "teacher" ? TEACHER_MS : SLOW_MS });

export const feedback = (event, options) => post("v1/feedback", event, options);

export const blob = (path, signal) => send(path, { signal });

export async function meetServer() {
  Object.assign(server, await call("healthz"));
  server.names = Object.keys(server.systems);
  // The document names what a search accepts, so also the teacher, which /healthz does not count as loaded.
  const { content } = await once("openapi.json", {});
  const document = await content.text().then(JSON.parse).catch(() => null);
  const { enum: names, const: only } = document?.components?.schemas.SearchRequest.properties.system ?? {};
  if (names ?? only) server.names = names ?? [only];
}
