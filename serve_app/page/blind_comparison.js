// The blind comparison: two answers without names, three questions, and the next query.

import { feedback, server } from "./api.js";
import { asked, change } from "./search_state.js";
import { columns } from "./result_columns.js";
import { byId, onToggle, showPressed, toast } from "./dom.js";

const QUESTIONS = ["accuracy", "aesthetics", "diversity"];
const compared = new Set(); // queries, of this visit
let examples = [];

export const isPossible = () => ["baseline", "live"].every((system) => server.names.includes(system));

export const offer = (queries) => { examples = queries; };

const nextExample = () => examples.find((query) => !compared.has(query) && query !== asked.words.trim());

export function toggle(blind = !asked.blind) {
  if (!isPossible()) return;
  const words = asked.words.trim() || asked.image ? asked.words : nextExample() ?? "";
  change({ blind, words });
}

export function draw() {
  byId("blind").hidden = !isPossible();
  showPressed(byId("blind"), asked.blind);
  document.body.classList.toggle("blind", asked.blind);
  byId("blind-intro").hidden = !asked.blind;
  byId("verdict").hidden = byId("verdict-done").hidden = true; // until both answers are there
  showSaved();
}

const saved = () => Number(localStorage.getItem("kallos-compared")) || 0;

function showSaved() {
  const count = saved();
  byId("blind-count").textContent = count === 1 ? "1 comparison saved" : `${count} comparisons saved`;
}

const ids = (column) => column.results.map((result) => result.image_id);

function onShown() {
  if (!asked.blind) return;
  const [a, b] = columns.map(ids);
  if (!a.length || !b.length) return;
  byId("verdict").reset();
  if (a.join() === b.join()) offerNext("Both answers are the same: there is nothing to compare.");
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
      ...Object.fromEntries(QUESTIONS.map((name) => [name, chosen.get(name)])),
    });
    if (isNew) localStorage.setItem("kallos-compared", saved() + 1);
    showSaved();
    if (columns[0] === a) {
      offerNext(isNew ? "Saved. Thank you." : "Saved before: it counts once.");
      byId("verdict-next").focus({ preventScroll: true }); // only here: while one types the box keeps it
    }
  } catch (error) {
    toast(`Not saved. ${error.message}`, { bad: true });
  }
  byId("verdict-save").disabled = false;
}

function offerNext(text) {
  compared.add(columns[0].question.query);
  const query = nextExample();
  byId("verdict").hidden = true;
  byId("verdict-done").hidden = false;
  byId("verdict-text").textContent = query ? text : `${text} Type a query of your own for the next one.`;
  byId("verdict-next").hidden = !query;
  byId("verdict-next").textContent = `Next: ${query}`;
}

export function listen() {
  onToggle(byId("blind"), toggle);
  byId("results").addEventListener("shown", onShown);
  byId("verdict").addEventListener("submit", save);
  byId("verdict-next").addEventListener("click", () => {
    change({ words: nextExample(), image: null });
    scrollTo({ top: 0 });
  });
}
