// The slider from literal to beautiful.

import { server } from "./api.js";
import { change, state } from "./search_state.js";
import { byId, debounced } from "./dom.js";
import { inOrder, titleOf } from "./result_columns.js";

const slider = () => byId("beautiful");

const applyBeauty = debounced(() => change({ beauty: slider().valueAsNumber }, "typing"));

const AXES = {
  fitted: "towards what was preferred",
  prompts: "from words such as “ugly” towards “beautiful”",
};

// Where each system's query moves to; systems with the same kind of axis share a sentence.
function hint() {
  const bySource = Object.groupBy(inOrder(Object.keys(server.systems)), (name) => server.systems[name].beauty.source);
  return Object.entries(bySource).map(([source, names]) => `${names.map(titleOf).join(" and ")}: ${AXES[source]}.`).join(" ");
}

export function draw() {
  if (!applyBeauty.isPending()) slider().value = state.beauty;
  const beauty = slider().valueAsNumber;
  slider().setAttribute("aria-valuetext", beauty ? `${beauty.toFixed(1)} of ${Number(slider().max)} towards beautiful` : "literal");
  slider().closest("label").classList.toggle("set", beauty > 0);
  byId("beautiful-hint").hidden = !beauty || state.blind;
  byId("beautiful-hint").textContent = `The query moves by ${beauty.toFixed(1)}. ${hint()}`;
}

export function listen() {
  slider().addEventListener("input", () => {
    applyBeauty();
    draw();
  });
}
