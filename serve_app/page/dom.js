// Helpers for every part of the page. Text from users and the server becomes textContent, never HTML.

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

// Calls `act` once there has been no call for `PAUSE_MS`.
export function debounced(act) {
  let timer = null;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { timer = null; act(); }, PAUSE_MS);
  };
  later.cancel = () => { clearTimeout(timer); timer = null; };
  later.isPending = () => timer !== null;
  return later;
}

// ---- the notice above the results

export function notice({ title, message }) {
  byId("notice-title").textContent = title ?? "The page failed";
  byId("notice-text").textContent = message;
  byId("notice").hidden = false;
}

export function hideNotice() {
  byId("notice").hidden = true;
}

// ---- short messages at the bottom of the window

const TOAST_MS = 5000;
let toastTimer;

// A popover, so that it is visible above an open dialog.
export function toast(text, { bad = false } = {}) {
  const element = byId("toast");
  element.textContent = text;
  element.classList.toggle("bad", bad);
  element.showPopover();
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.hidePopover(), TOAST_MS);
}

// ---- toggle buttons

export function onToggle(button, act) {
  button.addEventListener("click", () => act(button.getAttribute("aria-pressed") !== "true"));
}

export function showPressed(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

// A button that opens and closes the panel named in its aria-controls.
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
