// The results: one column for each system, or two without names in a blind comparison.

import { search, server } from "./api.js";
import { asked, isFiltered } from "./search_state.js";
import { card, showMove } from "./result_card.js";
import { byId, fromTemplate, make, milliseconds } from "./dom.js";
import { release } from "./previews.js";

const TITLES = {
  baseline: ["Baseline", "before"],
  live: ["Live", "aligned"],
  candidate: ["Candidate", "not yet promoted"],
  teacher: ["Teacher", "the slow cascade it learns from"],
};
const ORDER = ["baseline", "candidate", "live", "teacher"];
const SKELETONS = 6;

let chosen = () => {};
export const onChoose = (act) => { chosen = act; }; // act(column, place): a card was opened

export const titleOf = (system) => TITLES[system]?.[0] ?? system;

export class Column {
  // `side`: "A" or "B" in a blind comparison, where nothing may tell the system.
  constructor(system, side = "") {
    this.system = system;
    this.side = side;
    this.results = []; // of all pages, each with the answer it came in
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
      this.element.classList.toggle("leads", system === "live");
      this.element.querySelector(".encoder").textContent = TITLES[system]?.[1] ?? "";
    }
  }

  get next() {
    return this.answers.at(-1)?.next ?? "";
  }

  place(imageId) {
    return this.results.findIndex((result) => result.image_id === imageId);
  }

  wait() {
    this.element.setAttribute("aria-busy", "true");
    this.element.querySelector(".said").hidden = true;
    if (this.results.length) return; // older results are dimmed instead
    this.cards.replaceChildren(...Array.from({ length: SKELETONS }, () => make("li", undefined, "skeleton")));
  }

  // Asks and keeps the question: the cursor of the next page belongs to it.
  async ask(question, signal) {
    this.question = question;
    return search(question, signal);
  }

  show(answer) {
    this.clear();
    this.add(answer);
    if (!this.results.length) this.say(this.#nothing());
    if (this.side) return;
    const { total, ...steps } = answer.timings_ms;
    const parts = Object.entries(steps).map(([step, value]) => `${step} ${milliseconds(value)}`);
    this.element.querySelector(".timings").replaceChildren(
      make("b", milliseconds(total)), make("span", parts.length ? ` = ${parts.join(" + ")}` : ""));
  }

  // Says in the header who answered; `baseline`: the encoder of the baseline's answer, "" where there is none.
  tell(baseline) {
    this.element.querySelector(".encoder").textContent = this.#who(this.answers[0], baseline);
  }

  #who({ rephrased, system, encoder }, baseline) {
    if (rephrased) return `searched for “${rephrased}”`;
    if (system !== this.system) return `answered by the ${system}: an experiment`;
    const note = TITLES[system]?.[1];
    if (system === "teacher") return note;
    const same = system !== "baseline" && encoder === baseline;
    return `${same ? "the baseline's " : note ? `${note} · ` : ""}encoder ${encoder.slice(0, 8)}`;
  }

  add(answer) {
    const start = this.results.length;
    this.answers.push(answer);
    this.results.push(...answer.results.map((result) => ({ ...result, answer })));
    const looks = { judged: answer.system === "teacher", blind: Boolean(this.side), choose: (place) => chosen(this, place) };
    this.cards.append(...answer.results.map((result, index) => card(result, start + index, looks)));
  }

  clear() {
    this.element.removeAttribute("aria-busy");
    this.element.querySelector(".said").hidden = true;
    this.element.querySelector(".timings").replaceChildren();
    release(this.cards);
    this.cards.replaceChildren();
    this.results = [];
    this.answers = [];
  }

  // A sentence in place of the results, with a button where something can be done.
  say(text, label, act) {
    const said = this.element.querySelector(".said");
    said.replaceChildren(make("p", text));
    if (label) {
      const button = make("button", label, "plain");
      button.type = "button";
      button.addEventListener("click", act);
      said.append(button);
    }
    said.hidden = false;
  }

  #nothing() {
    if (server.systems[this.system]?.num_rows === 0) return "The index is empty: `kallos ingest` adds images.";
    return isFiltered() ? "Nothing found: loosen the filters." : "Nothing found.";
  }
}

export let columns = [];

// The columns that are wanted now; those that stay keep their results until new ones come.
export function layOut() {
  const wanted = asked.blind ? blindSides() : systemColumns();
  for (const column of columns) if (!wanted.includes(column)) column.clear();
  columns = wanted;
  byId("results").replaceChildren(...columns.map((column) => column.element));
  byId("results").style.setProperty("--columns", columns.length);
}

function systemColumns() {
  const names = server.names.filter((name) => name in server.systems || (name === "teacher" && asked.teacher));
  names.sort((one, other) => ORDER.indexOf(one) - ORDER.indexOf(other));
  return names.map((name) => columns.find((column) => column.system === name && !column.side) ?? new Column(name));
}

// New each time: the sides are shuffled for each query.
function blindSides() {
  const systems = Math.random() < 0.5 ? ["baseline", "live"] : ["live", "baseline"];
  return [new Column(systems[0], "A"), new Column(systems[1], "B")];
}

// What only several answers tell: whether an encoder is the baseline's, and where that has the others' images.
export function compare() {
  const baseline = columns.find((column) => column.system === "baseline" && !column.side && column.answers.length);
  const encoder = baseline?.answers[0].encoder ?? "";
  for (const column of columns) {
    if (column.side || !column.answers.length) continue;
    column.tell(encoder);
    const same = column.system !== "teacher" && column.answers[0].encoder === encoder;
    if (!baseline || column === baseline || same) continue;
    column.results.forEach((result, place) => {
      showMove(column.cards.children[place], place, baseline.place(result.image_id));
    });
  }
}
