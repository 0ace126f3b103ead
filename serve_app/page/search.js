// Runs the search whenever the state changes, and shows results, further pages and errors.

import { RequestError, SLOW_SYSTEMS } from "./api.js";
import { change, requestFor, state } from "./search_state.js";
import { columns, compare, layOut } from "./result_columns.js";
import { byId, debounced, hideNotice, notice, toast } from "./dom.js";

let running = null; // AbortController of the running search
let example = "";   // the query that a newly opened page shows

const searchTyped = debounced(() => change({ words: byId("query").value }, "typing"));

export const setExample = (query) => { example = query; };

export async function run() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const isStart = !state.words.trim() && !state.image;
  if (!drawHead(isStart)) return;
  layOut();
  for (const column of columns) column.showLoading();
  const isSlow = ({ system }) => SLOW_SYSTEMS.includes(system);
  const fastColumns = columns.filter((column) => !isSlow(column));
  for (const column of columns.filter(isSlow)) searchSlowly(column, signal);
  try {
    const answers = await Promise.all(fastColumns.map((column) => column.search(requestFor(column.system, example), signal)));
    if (signal.aborted) return;
    fastColumns.forEach((column, index) => column.show(answers[index]));
    compare();
    drawMore();
    byId("results").dispatchEvent(new Event("shown"));
  } catch (error) {
    if (signal.aborted) return;
    running.abort();
    fail(error);
  }
}

// Draw everything around the results. Returns false if there is nothing to search for.
function drawHead(isStart) {
  hideNotice();
  document.body.classList.toggle("searched", !isStart || state.blind);
  document.title = isStart ? "Kallos" : `${state.words.trim() || "By image"} · Kallos`;
  byId("example").hidden = !isStart || !example;
  byId("example").textContent = `For example: ${example}`;
  byId("more").hidden = true;
  const { query, image } = requestFor("", example);
  byId("results").hidden = !query && !image;
  if (!query && !image && !isStart) {
    notice({ title: "Nothing to search for", message: "Words with a minus sign only exclude images. Add words for what to show." });
  }
  return query || image;
}

function fail(error) {
  byId("results").hidden = byId("example").hidden = byId("more").hidden = true;
  for (const column of columns) column.clear();
  notice(error);
}

// Their results are added after those of the other systems.
async function searchSlowly(column, signal) {
  try {
    const answer = await column.search(requestFor(column.system, example), signal);
    if (signal.aborted) return;
    column.show(answer);
    compare();
    drawMore();
  } catch (error) {
    if (signal.aborted) return;
    column.clear();
    if (error instanceof RequestError && error.code === "teacher_starting") waitForModels(column, signal, error.retryAfter || 10);
    else column.showMessage(`${error.title ?? "The page failed"}. ${error.message}`, "Try again", () => retrySlowly(column, signal));
  }
}

function retrySlowly(column, signal) {
  column.showLoading();
  searchSlowly(column, signal);
}

function waitForModels(column, signal, seconds) {
  if (signal.aborted) return;
  if (seconds <= 0) {
    retrySlowly(column, signal);
    return;
  }
  const what = column.system === "teacher" ? "The teacher" : "The language model";
  column.showMessage(`${what} is starting. Next try in ${seconds} s.`, "Try now", () => { clearTimeout(timer); retrySlowly(column, signal); });
  const timer = setTimeout(() => waitForModels(column, signal, seconds - 1), 1000);
}

// ---- further pages

function drawMore() {
  byId("more").hidden = state.blind || !columns.some((column) => column.next);
}

async function loadMore() {
  const { signal } = running;
  const button = byId("more");
  button.disabled = true;
  try {
    await Promise.all(columns.filter((column) => column.next).map(async (column) => {
      const answer = await column.search({ ...column.request, cursor: column.next }, signal);
      if (!signal.aborted) column.add(answer);
    }));
    if (!signal.aborted) drawMore();
  } catch (error) {
    if (!signal.aborted) toast(`${error.title}. ${error.message}`, { bad: true });
  }
  compare();
  button.disabled = false;
}

// ---- the search box

export function listen() {
  byId("query").addEventListener("input", searchTyped);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(byId("query").value);
  });
  byId("k").addEventListener("change", () => change({ k: Number(byId("k").value) }));
  byId("more").addEventListener("click", loadMore);
}

export function submit(words) {
  searchTyped.cancel();
  change({ words });
}

export const stopTyping = () => searchTyped.cancel();

export function draw() {
  const box = byId("query");
  if (!searchTyped.isPending() && box.value !== state.words) box.value = state.words;
  byId("k").value = state.k;
}
