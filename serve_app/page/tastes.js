// The taste sliders, such as darker to brighter. The server names them.

import { change, state } from "./search_state.js";
import { byId, debounced, fromTemplate, panelButton, showCount } from "./dom.js";

const sliders = () => [...byId("tastes").querySelectorAll("input")];

const applyTastes = debounced(() => {
  const set = sliders().filter((slider) => slider.valueAsNumber !== 0);
  change({ tastes: Object.fromEntries(set.map((slider) => [slider.name, slider.valueAsNumber])) }, "typing");
});

// tastes: [{name, less, more}] from /v1/tastes. Without any the panel is hidden.
export function layOut(tastes) {
  byId("tastes-button").hidden = !tastes.length;
  if (!tastes.length) byId("tastes").hidden = true;
  byId("tastes-list").replaceChildren(...tastes.map(({ name, less, more }) => {
    const element = fromTemplate("taste-template");
    const slider = element.querySelector("input");
    slider.name = name;
    slider.setAttribute("aria-label", `${name}: from ${less} to ${more}`);
    element.querySelector(".less").textContent = less;
    element.querySelector(".more").textContent = more;
    return element;
  }));
}

export function draw() {
  for (const slider of sliders()) {
    if (!applyTastes.isPending()) slider.value = state.tastes[slider.name] ?? 0;
    slider.classList.toggle("set", slider.valueAsNumber !== 0);
  }
  const count = Object.keys(state.tastes).length;
  showCount(byId("tastes-button"), count);
  byId("tastes-reset").disabled = !count;
}

export function listen() {
  panelButton(byId("tastes-button"));
  byId("tastes").addEventListener("input", applyTastes);
  byId("tastes-reset").addEventListener("click", () => change({ tastes: {} }));
}
