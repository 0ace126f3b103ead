// The page of Kallos: one query, every system, side by side. Text from outside only ever goes in as textContent.
"use strict";

const TITLES = {
  baseline: ["Baseline", "before"],
  live: ["Live", "aligned"],
  candidate: ["Candidate", "not yet promoted"],
  teacher: ["Teacher", "the cascade"],
};
const ORDER = ["baseline", "teacher", "candidate", "live"];
const COUNTS = [6, 12, 24, 48];
const DEFAULT_COUNT = 12;
const SLOW_MS = 20000;

const byId = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};

let systems = {};       // name -> health of that system
let columns = {};       // name -> {element, results}
let running = null;     // AbortController of the search under way
let shown = null;       // {system, index} of the image in the viewer

// ---- talking to the server

class Refusal extends Error {
  constructor(title, message) { super(message); this.title = title; }
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") throw new Refusal("The server is slow", `No answer within ${SLOW_MS / 1000} seconds.`);
    throw new Refusal("The server does not answer", "Is it still running? Nothing was lost; try again.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body) return body;
  const title = response.status < 500 ? "That search was refused" : "The server had a problem";
  throw new Refusal(title, body?.error?.message ?? `Status ${response.status}.`);
}

function search(system, query, k, signal) {
  return call("v1/search", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ query, k, system }),
    signal: AbortSignal.any([signal, AbortSignal.timeout(SLOW_MS)]),
  });
}

// ---- searching

async function run(query, k) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  hideNotice();
  byId("results").hidden = false;
  for (const column of Object.values(columns)) column.element.setAttribute("aria-busy", "true");
  try {
    const answers = await Promise.all(Object.keys(columns).map((name) => search(name, query, k, signal)));
    for (const answer of answers) columns[answer.system].results = answer.results;
    for (const answer of answers) fill(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    running.abort();
    byId("results").hidden = byId("example").hidden = true;
    notice(error);
  }
  for (const column of Object.values(columns)) column.element.removeAttribute("aria-busy");
}

function submit(query, { remember = true } = {}) {
  const text = query.trim();
  byId("query").value = text;
  if (!text) {
    byId("query").focus();
    return;
  }
  const k = Number(byId("k").value);
  document.body.classList.add("searched");
  document.title = `${text} · Kallos`;
  byId("example").hidden = true;
  if (remember) history.pushState(null, "", `?${new URLSearchParams({ q: text, k })}`);
  run(text, k);
}

function followAddress() {
  const wanted = new URLSearchParams(location.search);
  const k = byId("k");
  if ([...k.options].some((option) => option.value === wanted.get("k"))) k.value = wanted.get("k");
  if (wanted.get("q")) submit(wanted.get("q"), { remember: false });
  else showFirst();
}

// A page just opened shows what to expect, with the first example.
function showFirst() {
  const query = byId("examples").querySelector("button")?.textContent;
  document.body.classList.remove("searched");
  document.title = "Kallos";
  byId("example").textContent = `For example: ${query}`;
  byId("example").hidden = byId("results").hidden = !query;
  if (query) run(query, Number(byId("k").value));
}

// ---- drawing

function layOut() {
  const names = Object.keys(systems);
  names.sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b));
  columns = {};
  byId("results").replaceChildren(...names.map((name) => {
    const element = byId("column-template").content.firstElementChild.cloneNode(true);
    const [title, note] = TITLES[name] ?? [name, ""];
    element.dataset.system = name;
    element.classList.toggle("leads", name === "live");
    element.querySelector("h2").textContent = title;
    const same = name !== "baseline" && systems[name].encoder === systems.baseline?.encoder;
    element.querySelector(".encoder").textContent = `${same ? "the same" : `${note} ·`} encoder ${systems[name].encoder.slice(0, 8)}`;
    element.setAttribute("aria-label", title);
    columns[name] = { element, results: [] };
    return element;
  }));
}

function fill({ system, results, timings_ms: timings }) {
  const { element } = columns[system];
  const line = element.querySelector(".timings");
  line.replaceChildren(make("b", milliseconds(timings.total)), make("span", ` = encode ${milliseconds(timings.encode)} + search ${milliseconds(timings.search)}`));
  element.querySelector(".cards").replaceChildren(...results.map((result, index) => card(system, result, index)));
  const empty = element.querySelector(".empty");
  empty.hidden = results.length > 0;
  empty.textContent = systems[system].num_rows
    ? "Nothing found."
    : "The index is empty: `kallos ingest` adds images.";
}

function card(system, result, index) {
  const element = byId("card-template").content.firstElementChild.cloneNode(true);
  const image = element.querySelector("img");
  image.src = result.preview_url;
  image.alt = "";
  image.loading = index < 12 ? "eager" : "lazy";
  element.dataset.image = result.image_id;
  element.querySelector(".rank").textContent = index + 1;
  showMove(element.querySelector(".moved"), system, result.image_id, index);
  const caption = element.querySelector(".caption");
  caption.textContent = result.caption || "no caption";
  caption.classList.toggle("none", !result.caption);
  caption.title = result.caption;
  element.querySelector("meter").value = Math.max(result.score, 0);
  element.querySelector("meter").setAttribute("aria-label", "score");
  element.querySelector("output").textContent = result.score.toFixed(3);
  element.querySelector("button").addEventListener("click", () => open(system, index));
  for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
    element.addEventListener(event, () => markTwins(result.image_id, on));
  }
  return element;
}

// Where the baseline had the image: only the aligned column tells.
function showMove(badge, system, imageId, index) {
  if (system === "baseline" || !columns.baseline || systems[system].encoder === systems.baseline.encoder) return;
  const before = rank("baseline", imageId);
  if (before < 0) {
    badge.textContent = "new";
    badge.classList.add("new");
    badge.title = "Not among the baseline's results";
  } else if (before !== index) {
    const up = before > index;
    badge.textContent = `${up ? "↑" : "↓"} ${Math.abs(before - index)}`;
    badge.classList.toggle("up", up);
    badge.title = `Baseline's number ${before + 1}`;
  }
}

const rank = (system, imageId) => columns[system].results.findIndex((result) => result.image_id === imageId);
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

function markTwins(imageId, on) {
  for (const twin of document.querySelectorAll(`.card[data-image="${imageId}"]`)) twin.classList.toggle("twin", on);
}

function notice({ title, message }) {
  byId("notice-title").textContent = title ?? "The page had a problem";
  byId("notice-text").textContent = message;
  byId("notice").hidden = false;
}

function hideNotice() {
  byId("notice").hidden = true;
}

// ---- the viewer

function open(system, index) {
  const result = columns[system].results[index];
  shown = { system, index };
  byId("viewer-image").src = result.preview_url;
  byId("viewer-image").alt = result.caption;
  byId("viewer-caption").textContent = result.caption || "No caption";
  const facts = [["Score", result.score.toFixed(4)]];
  for (const name of Object.keys(columns)) {
    const place = rank(name, result.image_id);
    facts.push([TITLES[name]?.[0] ?? name, place < 0 ? "not among the results" : `number ${place + 1}`]);
  }
  facts.push(["Original", `${result.width_px} × ${result.height_px} px`], ["Image", result.image_id.slice(0, 16)]);
  byId("viewer-facts").replaceChildren(...facts.flatMap(([term, value]) => [make("dt", term), make("dd", value)]));
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === columns[system].results.length - 1;
  if (!byId("viewer").open) byId("viewer").showModal();
}

function step(by) {
  if (columns[shown.system].results[shown.index + by]) open(shown.system, shown.index + by);
}

// ---- keys

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (byId("viewer").open) {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    return;
  }
  const typing = event.target === byId("query");
  if (typing && event.key === "Escape") byId("query").value = "";
  if (typing && event.key === "ArrowDown") moveFocus(document.querySelector(".card button"), event);
  if (typing || event.target.tagName === "SELECT" || byId("help").open) return;
  if (event.key === "/") {
    event.preventDefault();
    byId("query").focus();
    byId("query").select();
  }
  if (event.key === "?") byId("help").showModal();
  if (event.key.startsWith("Arrow")) moveFocus(neighbour(event.target.closest(".card button"), event.key), event);
}

function moveFocus(element, event) {
  if (!element) return;
  event.preventDefault();
  element.focus();
  element.scrollIntoView({ block: "nearest" });
}

// The nearest card in that direction, as the eye sees it: rows and columns differ with the window's width.
function neighbour(from, key) {
  if (!from) return null;
  const here = centre(from);
  const ahead = { ArrowLeft: (d) => -d.x, ArrowRight: (d) => d.x, ArrowUp: (d) => -d.y, ArrowDown: (d) => d.y }[key];
  const aside = key === "ArrowLeft" || key === "ArrowRight" ? (d) => Math.abs(d.y) : (d) => Math.abs(d.x);
  let best = null;
  for (const other of document.querySelectorAll(".card button")) {
    const delta = { x: centre(other).x - here.x, y: centre(other).y - here.y };
    if (ahead(delta) < 8) continue;
    const cost = ahead(delta) + 4 * aside(delta);
    if (!best || cost < best.cost) best = { other, cost };
  }
  return best?.other;
}

function centre(element) {
  const box = element.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
}

// ---- start

function showTheme() {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
}

function switchTheme() {
  const dark = (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches && "dark")) === "dark";
  localStorage.setItem("theme", dark ? "light" : "dark");
  showTheme();
}

function listen() {
  byId("search").addEventListener("submit", (event) => { event.preventDefault(); submit(byId("query").value); });
  byId("k").addEventListener("change", () => { if (byId("query").value.trim()) submit(byId("query").value); });
  byId("retry").addEventListener("click", () => (byId("query").value.trim() && Object.keys(systems).length ? submit(byId("query").value) : start()));
  byId("theme").addEventListener("click", switchTheme);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  byId("close").addEventListener("click", () => byId("viewer").close());
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) byId("viewer").close(); });
  document.addEventListener("keydown", onKey);
  addEventListener("popstate", followAddress);
}

async function showExamples() {
  const { queries } = await call("v1/examples");
  const box = byId("examples");
  box.replaceChildren(box.firstElementChild, ...queries.map((query) => {
    const button = make("button", query);
    button.type = "button";
    button.addEventListener("click", () => submit(query));
    return button;
  }));
  box.hidden = queries.length === 0;
}

async function start() {
  hideNotice();
  const health = byId("health");
  try {
    const state = await call("healthz");
    systems = state.systems;
    const counts = COUNTS.filter((count) => count <= state.max_k);
    if (!counts.length) counts.push(state.max_k);
    byId("k").replaceChildren(...counts.map((count) => new Option(`${count} images`, count, false, count === DEFAULT_COUNT)));
    const rows = Object.values(systems)[0].num_rows;
    health.textContent = `${rows.toLocaleString("en")} images`;
    health.className = "health ok";
    layOut();
    await showExamples();
    followAddress();
  } catch (error) {
    health.textContent = "no connection";
    health.className = "health down";
    notice(error);
  }
}

showTheme();
listen();
if (matchMedia("(hover: hover)").matches) byId("query").focus(); // on a phone it would raise the keyboard
start();
