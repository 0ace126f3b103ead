// Keyboard shortcuts.

import * as blindComparison from "./blind_comparison.js";
import { byId } from "./dom.js";
import * as imageComparison from "./image_comparison.js";
import * as viewer from "./viewer.js";

// A hidden button means that its action is not available now.
const press = (id) => { if (byId(id).checkVisibility()) byId(id).click(); };

const IN_VIEWER = {
  ArrowLeft: () => viewer.step(-1),
  ArrowRight: () => viewer.step(1),
  w: () => press("why"),
  m: () => press("like"),
  p: () => press("better"),
};

const ON_PAGE = {
  "/": () => {
    byId("query").focus();
    byId("query").select();
  },
  "?": () => byId("help").showModal(),
  b: () => blindComparison.toggle(),
  Escape: imageComparison.stop,
};

// Inputs that text is typed into, unlike sliders and radio buttons.
const isTextInput = (element) => element.matches("input:not([type=radio], [type=range]), select");

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (byId("viewer").open) {
    const act = IN_VIEWER[event.key];
    if (act) event.preventDefault();
    act?.();
    return;
  }
  if (document.querySelector("dialog[open]")) return;
  if (event.target === byId("query")) {
    onKeyInSearchBox(event);
    return;
  }
  if (event.key.startsWith("Arrow")) moveFocus(neighbour(event.target.closest(".card button"), event.key), event);
  if (isTextInput(event.target) && event.key !== "Escape") return;
  const act = ON_PAGE[event.key];
  if (act) event.preventDefault();
  act?.();
}

function onKeyInSearchBox(event) {
  if (event.key === "Escape" && event.target.value) {
    event.preventDefault();
    event.target.value = "";
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  }
  if (event.key === "ArrowDown") moveFocus(byId("results").querySelector(".card button"), event);
}

function moveFocus(element, event) {
  if (!element) return;
  event.preventDefault();
  element.focus();
  element.scrollIntoView({ block: "nearest" });
}

// The nearest card in the direction of an arrow key, by position on the screen: the number of columns varies.
function neighbour(from, key) {
  if (!from) return null;
  const here = centre(from);
  const ahead = { ArrowLeft: (d) => -d.x, ArrowRight: (d) => d.x, ArrowUp: (d) => -d.y, ArrowDown: (d) => d.y }[key];
  const aside = key === "ArrowLeft" || key === "ArrowRight" ? (d) => Math.abs(d.y) : (d) => Math.abs(d.x);
  let nearest = null;
  for (const other of byId("results").querySelectorAll(".card button")) {
    if (other.closest("[inert]")) continue;
    const delta = { x: centre(other).x - here.x, y: centre(other).y - here.y };
    if (ahead(delta) < 8) continue;
    const cost = ahead(delta) + 4 * aside(delta);
    if (!nearest || cost < nearest.cost) nearest = { other, cost };
  }
  return nearest?.other;
}

function centre(element) {
  const box = element.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
}

export function listen() {
  document.addEventListener("keydown", onKey);
  byId("help-button").addEventListener("click", () => byId("help").showModal());
}
