// One image found, as a card; and what is the same in several columns.

import { byId, fromTemplate } from "./dom.js";
import { show } from "./previews.js";

const EAGER = 12; // pictures loaded before they are scrolled to

// The teacher judges from 1 to 5; the others measure a cosine.
export const scoreText = (score, judged) => (judged ? `${score.toFixed(1)} of 5` : score.toFixed(3));

// `blind`: nothing that tells systems apart, only the picture and its place.
export function card(result, place, { judged = false, blind = false, choose }) {
  const element = fromTemplate("card-template");
  const image = element.querySelector("img");
  image.loading = place < EAGER ? "eager" : "lazy";
  show(image, result.preview_url);
  element.dataset.image = result.image_id;
  element.querySelector(".rank").textContent = place + 1;
  const button = element.querySelector("button");
  button.addEventListener("click", () => choose(place));
  const caption = element.querySelector(".caption");
  if (blind) {
    button.setAttribute("aria-label", `${place + 1}: ${result.caption || "no caption"}`);
    for (const part of [caption, element.querySelector(".score"), element.querySelector(".moved")]) part.remove();
    return element;
  }
  caption.textContent = result.caption || "no caption";
  caption.classList.toggle("none", !result.caption);
  caption.title = result.caption;
  element.querySelector("meter").value = judged ? (result.score - 1) / 4 : Math.max(result.score, 0);
  element.querySelector("output").textContent = scoreText(result.score, judged);
  for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
    element.addEventListener(event, () => markTwins(result.image_id, on));
  }
  return element;
}

function markTwins(imageId, on) {
  for (const twin of byId("results").querySelectorAll(`.card[data-image="${imageId}"]`)) twin.classList.toggle("twin", on);
}

// `before`: the image's place in the baseline's results, below 0 = not among them.
export function showMove(element, place, before) {
  const badge = element.querySelector(".moved");
  badge.className = "moved";
  badge.textContent = badge.title = "";
  if (before < 0) {
    badge.textContent = "new";
    badge.classList.add("new");
    badge.title = "Not among the baseline's results";
  } else if (before !== place) {
    const up = before > place;
    badge.textContent = `${up ? "↑" : "↓"} ${Math.abs(before - place)}`;
    badge.classList.toggle("up", up);
    badge.title = `Baseline's number ${before + 1}`;
  }
}
