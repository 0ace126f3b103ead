// "This one is better": than which other image of the same answer, a second choice tells.

import { feedback } from "./api.js";
import { columns } from "./result_columns.js";
import { byId, toast } from "./dom.js";

let better = null; // {column, place} while the other image is being chosen

export const isOn = () => better !== null;

export function start(column, place) {
  better = { column, place };
  const { answer } = column.results[place];
  document.body.classList.add("picking");
  for (const one of columns) one.element.inert = one !== column;
  // Only images of one answer can be compared: a further page is an answer of its own.
  column.results.forEach((result, at) => { column.cards.children[at].inert = result.answer !== answer || at === place; });
  column.cards.children[place].classList.add("better");
  byId("pick-text").textContent = `Number ${place + 1} is better. Better than which? Choose it.`;
  byId("pick").hidden = false;
  column.cards.querySelector(".card:not([inert]) button").focus({ preventScroll: true });
}

export function stop() {
  if (!better) return;
  const { column, place } = better;
  better = null;
  document.body.classList.remove("picking");
  for (const one of columns) one.element.inert = false;
  for (const card of column.cards.children) card.inert = false;
  const chosen = column.cards.children[place];
  chosen?.classList.remove("better");
  chosen?.querySelector("button")?.focus({ preventScroll: true });
  byId("pick").hidden = true;
}

export async function finish(other) {
  const { column, place } = better;
  const { answer, image_id } = column.results[place];
  stop();
  const results = answer.results.map((result) => result.image_id);
  const over = column.results[other].image_id;
  try {
    const { new: isNew } = await feedback({ kind: "prefer", search_id: answer.search_id, results, image_id, over });
    const told = `Number ${place + 1} is better than number ${other + 1}`;
    toast(isNew ? `Saved: ${told}.` : `Known already: ${told}.`);
  } catch (error) {
    toast(`Not saved. ${error.message}`, { bad: true });
  }
}

export function listen() {
  byId("pick-cancel").addEventListener("click", stop);
}
