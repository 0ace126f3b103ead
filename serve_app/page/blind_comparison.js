// The blind comparison: two answers without names, three questions, then the next query.

import { feedback, server } from "./api.js";
import { state, change } from "./search_state.js";
import { columns } from "./result_columns.js";
import { byId, fromTemplate, onToggle, showPressed, toast } from "./dom.js";

const QUESTIONS = {
  accuracy: "Which fits the query better?",
  aesthetics: "Which is more beautiful?",
  diversity: "Which is more varied?",
};
const compared = new Set(); // queries compared during this visit
let examples = [];

export const isAvailable = () => ["baseline", "live"].every((system) => server.names.includes(system));

export const setExamples = (queries) => { examples = queries; };

const nextExample = () => examples.find((query) => !compared.has(query) && query !== state.words.trim());

export function toggle(blind = !state.blind) {
  if (!isAvailable()) return;
  const words = state.words.trim() || state.image ? state.words : nextExample() ?? "";
  change({ blind, words });
}

export function draw() {
  byId("blind").hidden = !isAvailable();
  showPressed(byId("blind"), state.blind);
  document.body.classList.toggle("blind", state.blind);
  byId("blind-intro").hidden = !state.blind;
  byId("verdict").hidden = byId("verdict-done").hidden = true; // until both answers have arrived
  drawCount();
}

const numSaved = () => Number(localStorage.getItem("kallos-compared")) || 0;

function drawCount() {
  const count = numSaved();
  byId("blind-count").textContent = count === 1 ? "1 comparison saved" : `${count} comparisons saved`;
}

const ids = (column) => column.results.map((result) => result.image_id);

function onShown() {
  if (!state.blind) return;
  const [a, b] = columns.map(ids);
  if (!a.length || !b.length) return;
  byId("verdict").reset();
  if (a.join() === b.join()) offerNext("Both answers are equal: there is nothing to compare.");
  else byId("verdict").hidden = false;
}

async function save(event) {
  event.preventDefault();
  const [a, b] = columns;
  const chosen = new FormData(byId("verdict"));
  byId("verdict-save").disabled = true;
  try {
    const { new: isNew } = await feedback({
      kind: "blind",
      search_id: a.answers[0].search_id,
      results: ids(a),
      other_search_id: b.answers[0].search_id,
      other_results: ids(b),
      ...Object.fromEntries(Object.keys(QUESTIONS).map((name) => [name, chosen.get(name)])),
    });
    if (isNew) localStorage.setItem("kallos-compared", numSaved() + 1);
    drawCount();
    if (columns[0] === a) {
      offerNext(isNew ? "Saved. Thank you." : "Already saved: it counts once.");
      byId("verdict-next").focus({ preventScroll: true }); // only after a vote: the search box must not lose the focus
    }
  } catch (error) {
    toast(`Not saved. ${error.message}`, { bad: true });
  }
  byId("verdict-save").disabled = false;
}

function offerNext(text) {
  compared.add(columns[0].request.query);
  const query = nextExample();
  byId("verdict").hidden = true;
  byId("verdict-done").hidden = false;
  byId("verdict-text").textContent = query ? text : `${text} Type your own query for the next comparison.`;
  byId("verdict-next").hidden = !query;
  byId("verdict-next").textContent = `Next: ${query}`;
}

function questionElement([name, text]) {
  const element = fromTemplate("question-template");
  element.querySelector("legend").textContent = text;
  for (const input of element.querySelectorAll("input")) input.name = name;
  return element;
}

export function listen() {
  byId("verdict").prepend(...Object.entries(QUESTIONS).map(questionElement));
  onToggle(byId("blind"), toggle);
  byId("results").addEventListener("shown", onShown);
  byId("verdict").addEventListener("submit", save);
  byId("verdict-next").addEventListener("click", () => {
    change({ words: nextExample(), image: null });
    scrollTo({ top: 0 });
  });
}
