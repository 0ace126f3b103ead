// The cheap rivals of alignment, which can be compared with it: the panel with their names and explanations.

import { server } from "./api.js";
import { change, state } from "./search_state.js";
import { byId, fromTemplate, panelButton, showCount } from "./dom.js";
import { titleOf } from "./result_columns.js";

const EXPLANATIONS = {
  suffix: () => (server.suffix ? `adds the same words to every query: “…${server.suffix}”` : "adds the same words to every query; none were found that help"),
  axis: () => "moves every query in the same direction, towards what was preferred",
  rephrase: () => "lets the language model rewrite the query, but no judge looks at the images",
};

// Those that this server has. `kallos align` fits suffix and axis; rephrase needs a language model.
export const available = () =>
  Object.keys(EXPLANATIONS).filter((name) => server.names.includes(name) && (name === "rephrase" || server.suffix !== null));

const boxes = () => [...byId("rivals").querySelectorAll("input")];

export function layOut() {
  const names = available();
  byId("rivals-button").hidden = !names.length;
  byId("rivals-list").replaceChildren(...names.map((name) => {
    const element = fromTemplate("rival-template");
    element.querySelector("input").name = name;
    element.querySelector("b").textContent = titleOf(name);
    element.querySelector(".what").textContent = EXPLANATIONS[name]();
    return element;
  }));
}

export function draw() {
  for (const box of boxes()) {
    box.checked = state.rivals.includes(box.name);
    box.disabled = state.blind;
  }
  showCount(byId("rivals-button"), state.rivals.length);
}

export function listen() {
  panelButton(byId("rivals-button"));
  byId("rivals").addEventListener("change", () => {
    change({ rivals: boxes().filter((box) => box.checked).map((box) => box.name) });
  });
}
