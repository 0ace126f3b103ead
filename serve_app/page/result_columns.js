// The columns of results: one for each system, or two without names in a blind comparison.

import { search, server } from "./api.js";
import { state, isFiltered } from "./search_state.js";
import { card, showRankChange } from "./result_card.js";
import { byId, fromTemplate, make, milliseconds } from "./dom.js";
import { release } from "./previews.js";

const TITLES = {
  baseline: ["Baseline", "before"],
  suffix: ["Suffix", "the baseline with the same words added to every query"],
  axis: ["Axis", "the baseline with every query moved in the same direction"],
  rephrase: ["Rephrase", "the baseline with the language model's words, without a judge"],
  live: ["Live", "aligned"],
  candidate: ["Candidate", "not yet promoted"],
  teacher: ["Teacher", "the slow cascade that alignment learns from"],
};
const ORDER = ["baseline", "suffix", "axis", "rephrase", "candidate", "live", "teacher"];
const VARIANTS = ["suffix", "axis", "rephrase", "teacher"]; // search with the baseline's encoder in ways of their own
const NUM_SKELETONS = 6;

let chooseResult = () => {};
export const onChoose = (listener) => { chooseResult = listener; }; // listener(column, index): a card was clicked

export const inOrder = (systems) => systems.toSorted((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b));

export const titleOf = (system) => TITLES[system]?.[0] ?? system;

export class Column {
  // `side`: "A" or "B" in a blind comparison, where nothing may reveal the system.
  constructor(system, side = "") {
    this.system = system;
    this.side = side;
    this.results = []; // of all pages, each with its answer
    this.answers = [];
    this.element = fromTemplate("column-template");
    this.cards = this.element.querySelector(".cards");
    const title = side ? `Answer ${side}` : titleOf(system);
    this.element.setAttribute("aria-label", title);
    this.element.querySelector("h2").textContent = title;
    if (side) {
      this.element.dataset.side = side;
    } else {
      this.element.dataset.system = system;
      this.element.classList.toggle("main-column", system === "live");
      this.element.querySelector(".encoder").textContent = TITLES[system]?.[1] ?? "";
    }
  }

  get next() {
    return this.answers.at(-1)?.next ?? "";
  }

  indexOf(imageId) {
    return this.results.findIndex((result) => result.image_id === imageId);
  }

  showLoading() {
    this.element.setAttribute("aria-busy", "true");
    this.element.querySelector(".message").hidden = true;
    if (this.results.length) return; // the older results are dimmed
    this.cards.replaceChildren(...Array.from({ length: NUM_SKELETONS }, () => make("li", undefined, "skeleton")));
  }

  // Send a search and keep its request: the cursor of the next page belongs to it.
  async search(request, signal) {
    this.request = request;
    return search(request, signal);
  }

  show(answer) {
    this.clear();
    this.add(answer);
    const text = this.results.length ? shortenedText(answer) : this.#noResultsText();
    if (text) this.showMessage(text);
    if (this.side) return;
    const { total, ...steps } = answer.timings_ms;
    const parts = Object.entries(steps).map(([step, value]) => `${step} ${milliseconds(value)}`);
    this.element.querySelector(".timings").replaceChildren(
      make("b", milliseconds(total)), make("span", parts.length ? ` = ${parts.join(" + ")}` : ""));
  }

  // Name the encoder in the header. `baseline`: the encoder of the baseline's answer, "" if there is none.
  showEncoder(baseline) {
    this.element.querySelector(".encoder").textContent = this.#encoderText(this.answers[0], baseline);
  }

  #encoderText({ rephrased, system, encoder }, baseline) {
    if (rephrased) return `searched for “${rephrased}”`;
    if (system !== this.system) return `answered by the ${system}, for an experiment`;
    const note = TITLES[system]?.[1];
    if (VARIANTS.includes(system)) return note;
    const same = system !== "baseline" && encoder === baseline;
    return `${same ? "the baseline's " : note ? `${note} · ` : ""}encoder ${encoder.slice(0, 8)}`;
  }

  add(answer) {
    const start = this.results.length;
    this.answers.push(answer);
    this.results.push(...answer.results.map((result) => ({ ...result, answer })));
    const options = { isRating: answer.system === "teacher", blind: Boolean(this.side), choose: (index) => chooseResult(this, index) };
    this.cards.append(...answer.results.map((result, index) => card(result, start + index, options)));
  }

  clear() {
    this.element.removeAttribute("aria-busy");
    this.element.querySelector(".message").hidden = true;
    this.element.querySelector(".timings").replaceChildren();
    release(this.cards);
    this.cards.replaceChildren();
    this.results = [];
    this.answers = [];
  }

  // Show a message instead of results, with a button if `label` is given.
  showMessage(text, label, act) {
    const message = this.element.querySelector(".message");
    message.replaceChildren(make("p", text));
    if (label) {
      const button = make("button", label, "plain");
      button.type = "button";
      button.addEventListener("click", act);
      message.append(button);
    }
    message.hidden = false;
  }

  #noResultsText() {
    if (server.systems[this.system]?.num_rows === 0) return "The index is empty: add images with `kallos ingest`.";
    return isFiltered() ? "No results: relax the filters." : "No results.";
  }
}

// Says that the query or a negative was too long to be read completely, "" if none was.
function shortenedText({ query_words: query, negatives_words: negatives }) {
  if (query.read < query.given) return `The query is too long: the encoder read ${query.read} of its ${query.given} words.`;
  return negatives.some(({ given, read }) => read < given) ? "A negative is too long: the encoder read only its start." : "";
}

export let columns = [];

// Show the columns that the state requires. Columns that stay keep their results until new ones arrive.
export function layOut() {
  const required = state.blind ? blindSides() : systemColumns();
  for (const column of columns) if (!required.includes(column)) column.clear();
  columns = required;
  byId("results").replaceChildren(...columns.map((column) => column.element));
  byId("results").style.setProperty("--columns", columns.length);
}

function systemColumns() {
  const chosen = [...state.rivals, ...(state.teacher ? ["teacher"] : [])];
  const names = server.names.filter((name) => name in server.systems || chosen.includes(name));
  return inOrder(names).map((name) => columns.find((column) => column.system === name && !column.side) ?? new Column(name));
}

// New columns for each query, with the sides shuffled.
function blindSides() {
  const systems = Math.random() < 0.5 ? ["baseline", "live"] : ["live", "baseline"];
  return [new Column(systems[0], "A"), new Column(systems[1], "B")];
}

// Compare each column with the baseline: mark equal encoders and the changes of rank.
export function compare() {
  const baseline = columns.find((column) => column.system === "baseline" && !column.side && column.answers.length);
  const encoder = baseline?.answers[0].encoder ?? "";
  for (const column of columns) {
    if (column.side || !column.answers.length) continue;
    column.showEncoder(encoder);
    const same = !VARIANTS.includes(column.system) && column.answers[0].encoder === encoder;
    if (!baseline || column === baseline || same) continue;
    column.results.forEach((result, index) => {
      showRankChange(column.cards.children[index], index, baseline.indexOf(result.image_id));
    });
  }
}
