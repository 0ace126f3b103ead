// What results must be, and whether they shall differ from each other.

import { asked, change, FILTERS } from "./search_state.js";
import { byId, debounced, onToggle, panelButton, showCount, showPressed } from "./dom.js";

const inputs = () => Object.keys(FILTERS).map((name) => byId("filters").elements[name]);
const isOff = (input) => !input.value.trim() || !input.validity.valid || (input.type === "range" && input.valueAsNumber === 0);

const filter = debounced(() => {
  const set = inputs().filter((input) => !isOff(input));
  change({ filters: Object.fromEntries(set.map((input) => [input.name, input.value])) }, "typing");
});

const showBeauty = () => {
  const slider = byId("filters").elements.beauty;
  byId("beauty-value").textContent = slider.valueAsNumber ? slider.valueAsNumber.toFixed(2) : "any";
};

export function draw() {
  for (const input of inputs()) {
    // What is being typed stays, also where it is not valid yet.
    if (!filter.waits() && input !== document.activeElement) input.value = asked.filters[input.name] ?? (input.type === "range" ? 0 : "");
  }
  showBeauty();
  const count = Object.keys(asked.filters).length;
  showCount(byId("filters-button"), count);
  byId("filters-reset").disabled = !count;
  showPressed(byId("varied"), asked.diverse);
}

export function listen() {
  panelButton(byId("filters-button"));
  onToggle(byId("varied"), (diverse) => change({ diverse }));
  const form = byId("filters");
  form.addEventListener("input", () => {
    showBeauty();
    filter();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("filters-reset").addEventListener("click", () => change({ filters: {} }));
}
