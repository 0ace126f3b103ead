// The slider from literal to beautiful.

import { server } from "./api.js";
import { change, state } from "./search_state.js";
import { byId, debounced } from "./dom.js";
import { titleOf } from "./result_columns.js";

const slider = () => byId("beautiful");

const applyBeauty = debounced(() => change({ beauty: slider().valueAsNumber }, "typing"));

const AXES = {
  fitted: "along the direction that people's and the judge's preferences point to",
  prompts: "along the direction from words such as “ugly” to words such as “beautiful”",
};

// Where each system's query moves to; systems with the same kind of axis share a sentence.
function hint() {
  const bySource = Object.groupBy(Object.keys(server.systems), (name) => server.systems[name].beauty.source);
  return Object.entries(bySource).map(([source, names]) => `${names.map(titleOf).join(" and ")}: ${AXES[source]}.`).join(" ");
}

export function draw() {
  if (!applyBeauty.isPending()) slider().value = state.beauty;
  const beauty = slider().valueAsNumber;
  slider().setAttribute("aria-valuetext", beauty ? `${beauty.toFixed(1)} of ${Number(slider().max)} towards beautiful` : "literal");
  slider().closest("label").classList.toggle("set", beauty > 0);
  byId("beautiful-hint").hidden = !beauty || state.blind;
  byId("beautiful-hint").textContent = `Every query moves by ${beauty.toFixed(1)} towards beautiful. ${hint()}`;
}

export function listen() {
  slider().addEventListener("input", () => {
    applyBeauty();
    draw();
  });
}
