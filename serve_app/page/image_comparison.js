// "This one is better": the next click chooses the worse image of the same answer.

import { feedback } from "./api.js";
import { columns } from "./result_columns.js";
import { byId, toast } from "./dom.js";

let better = null; // {column, index} while the worse image is being chosen

export const isActive = () => better !== null;

export function start(column, index) {
  better = { column, index };
  const { answer } = column.results[index];
  document.body.classList.add("picking");
  for (const one of columns) one.element.inert = one !== column;
  // Only images of one answer can be compared, and every page is an answer of its own.
  column.results.forEach((result, other) => { column.cards.children[other].inert = result.answer !== answer || other === index; });
  column.cards.children[index].classList.add("better");
  byId("pick-text").textContent = `Number ${index + 1} is better. Now choose the worse image.`;
  byId("pick").hidden = false;
  column.cards.querySelector(".card:not([inert]) button").focus({ preventScroll: true });
}

export function stop() {
  if (!better) return;
  const { column, index } = better;
  better = null;
  document.body.classList.remove("picking");
  for (const one of columns) one.element.inert = false;
  for (const card of column.cards.children) card.inert = false;
  const chosen = column.cards.children[index];
  chosen?.classList.remove("better");
  chosen?.querySelector("button")?.focus({ preventScroll: true });
  byId("pick").hidden = true;
}

export async function finish(other) {
  const { column, index } = better;
  const { answer, image_id } = column.results[index];
  stop();
  const results = answer.results.map((result) => result.image_id);
  const over = column.results[other].image_id;
  try {
    const { new: isNew } = await feedback({ kind: "prefer", search_id: answer.search_id, results, image_id, over });
    const choice = `number ${index + 1} is better than number ${other + 1}`;
    toast(isNew ? `Saved: ${choice}.` : `Already saved: ${choice}.`);
  } catch (error) {
    toast(`Not saved. ${error.message}`, { bad: true });
  }
}

export function listen() {
  byId("pick-cancel").addEventListener("click", stop);
}
