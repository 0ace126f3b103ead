// From a change of what is asked to results on the page: while typing, page by page, with all that can go wrong.

import { Refusal } from "./api.js";
import { asked, change, question } from "./search_state.js";
import { columns, compare, layOut } from "./result_columns.js";
import { byId, debounced, hideNotice, notice, toast } from "./dom.js";

let running = null; // AbortController of the search under way
let example = "";   // what a page just opened shows

const searchTyped = debounced(() => change({ words: byId("query").value }, "typing"));

export const offer = (query) => { example = query; };

export async function run() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const first = !asked.words.trim() && !asked.image;
  if (!drawHead(first)) return;
  layOut();
  for (const column of columns) column.wait();
  const loaded = columns.filter((column) => column.system !== "teacher");
  const teacher = columns.find((column) => column.system === "teacher");
  if (teacher) askTeacher(teacher, signal);
  try {
    const answers = await Promise.all(loaded.map((column) => column.ask(question(column.system, example), signal)));
    if (signal.aborted) return;
    loaded.forEach((column, index) => column.show(answers[index]));
    compare();
    drawMore();
    byId("results").dispatchEvent(new Event("shown"));
  } catch (error) {
    if (signal.aborted) return;
    running.abort();
    fail(error);
  }
}

// Everything around the results; false when there is nothing to search for.
function drawHead(first) {
  hideNotice();
  document.body.classList.toggle("searched", !first || asked.blind);
  document.title = first ? "Kallos" : `${asked.words.trim() || "By image"} · Kallos`;
  byId("example").hidden = !first || !example;
  byId("example").textContent = `For example: ${example}`;
  byId("more").hidden = true;
  const { query, image } = question("", example);
  byId("results").hidden = !query && !image;
  if (!query && !image && !first) {
    notice({ title: "Nothing to look for", message: "Words with a minus sign say what not to show. Say also what to show." });
  }
  return query || image;
}

function fail(error) {
  byId("results").hidden = byId("example").hidden = byId("more").hidden = true;
  for (const column of columns) column.clear();
  notice(error);
}

// The teacher answers when it can, while the others stand there already.
async function askTeacher(column, signal) {
  try {
    const answer = await column.ask(question("teacher", example), signal);
    if (signal.aborted) return;
    column.show(answer);
    compare();
    drawMore();
  } catch (error) {
    if (signal.aborted) return;
    column.clear();
    if (error instanceof Refusal && error.code === "teacher_starting") waitForTeacher(column, signal, error.retryAfter || 10);
    else column.say(`${error.title ?? "The page had a problem"}. ${error.message}`, "Try again", () => again(column, signal));
  }
}

function again(column, signal) {
  column.wait();
  askTeacher(column, signal);
}

function waitForTeacher(column, signal, seconds) {
  if (signal.aborted) return;
  if (seconds <= 0) {
    again(column, signal);
    return;
  }
  column.say(`The teacher is starting. Next try in ${seconds} s.`, "Try now", () => { clearTimeout(timer); again(column, signal); });
  const timer = setTimeout(() => waitForTeacher(column, signal, seconds - 1), 1000);
}

// ---- further pages

function drawMore() {
  byId("more").hidden = asked.blind || !columns.some((column) => column.next);
}

async function more() {
  const { signal } = running;
  const button = byId("more");
  button.disabled = true;
  try {
    await Promise.all(columns.filter((column) => column.next).map(async (column) => {
      const answer = await column.ask({ ...column.question, cursor: column.next }, signal);
      if (!signal.aborted) column.add(answer);
    }));
    if (!signal.aborted) drawMore();
  } catch (error) {
    if (!signal.aborted) toast(`${error.title}. ${error.message}`, { bad: true });
  }
  compare();
  button.disabled = false;
}

// ---- the box

export function listen() {
  byId("query").addEventListener("input", searchTyped);
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(byId("query").value);
  });
  byId("k").addEventListener("change", () => change({ k: Number(byId("k").value) }));
  byId("more").addEventListener("click", more);
}

export function submit(words) {
  searchTyped.cancel();
  change({ words });
}

export const stopTyping = () => searchTyped.cancel();

export function draw() {
  const box = byId("query");
  if (!searchTyped.waits() && box.value !== asked.words) box.value = asked.words;
  byId("k").value = asked.k;
}
