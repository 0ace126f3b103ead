// The filter panel and the button for varied results.

import { state, change, FILTERS } from "./search_state.js";
import { byId, debounced, onToggle, panelButton, showCount, showPressed } from "./dom.js";

const inputs = () => Object.keys(FILTERS).map((name) => byId("filters").elements[name]);
const isUnset = (input) => !input.value.trim() || !input.validity.valid || (input.type === "range" && input.valueAsNumber === 0);

const applyFilters = debounced(() => {
  const set = inputs().filter((input) => !isUnset(input));
  change({ filters: Object.fromEntries(set.map((input) => [input.name, input.value])) }, "typing");
});

const showBeauty = () => {
  const slider = byId("filters").elements.beauty;
  byId("beauty-value").textContent = slider.valueAsNumber ? slider.valueAsNumber.toFixed(2) : "any";
};

export function draw() {
  for (const input of inputs()) {
    // Do not overwrite what is being typed, even if it is not valid yet.
    if (!applyFilters.isPending() && input !== document.activeElement) input.value = state.filters[input.name] ?? (input.type === "range" ? 0 : "");
  }
  showBeauty();
  const count = Object.keys(state.filters).length;
  showCount(byId("filters-button"), count);
  byId("filters-reset").disabled = !count;
  showPressed(byId("varied"), state.diverse);
}

export function listen() {
  panelButton(byId("filters-button"));
  onToggle(byId("varied"), (diverse) => change({ diverse }));
  const form = byId("filters");
  form.addEventListener("input", () => {
    showBeauty();
    applyFilters();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("filters-reset").addEventListener("click", () => change({ filters: {} }));
}
