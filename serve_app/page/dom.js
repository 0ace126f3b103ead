// Small things that every part of the page needs. Text from outside goes in as textContent, never as HTML.

export const byId = (id) => document.getElementById(id);

export function make(tag, text, name) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

export const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);

export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;

const PAUSE_MS = 200;

// `act`, once no call of it has come for a while.
export function debounced(act) {
  let timer = null;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { timer = null; act(); }, PAUSE_MS);
  };
  later.cancel = () => { clearTimeout(timer); timer = null; };
  later.waits = () => timer !== null;
  return later;
}

// ---- the notice above the results

export function notice({ title, message }) {
  byId("notice-title").textContent = title ?? "The page had a problem";
  byId("notice-text").textContent = message;
  byId("notice").hidden = false;
}

export function hideNotice() {
  byId("notice").hidden = true;
}

// ---- the short message at the foot of the window

const TOAST_MS = 5000;
let toastTimer;

// It is a popover, so that it stands above an open dialog.
export function toast(text, { bad = false } = {}) {
  const element = byId("toast");
  element.textContent = text;
  element.classList.toggle("bad", bad);
  element.showPopover();
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.hidePopover(), TOAST_MS);
}

// ---- buttons that switch something

export function onToggle(button, act) {
  button.addEventListener("click", () => act(button.getAttribute("aria-pressed") !== "true"));
}

export function showPressed(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

// A button that opens and closes the panel it names in aria-controls; its badge counts what is set there.
export function panelButton(button) {
  const panel = byId(button.getAttribute("aria-controls"));
  button.addEventListener("click", () => {
    panel.hidden = !panel.hidden;
    button.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) panel.querySelector("input")?.focus();
  });
}

export function showCount(button, count) {
  const badge = button.querySelector(".count");
  badge.textContent = count || "";
  badge.hidden = !count;
}
