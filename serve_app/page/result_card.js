// The card of one result, and the marks that compare it with other columns.

import { byId, fromTemplate } from "./dom.js";
import { show } from "./previews.js";

const NUM_EAGER = 12; // previews that load before they are scrolled into view

// Scores of the teacher are ratings from 1 to 5, those of encoders are cosines.
export const scoreText = (score, isRating) => (isRating ? `${score.toFixed(1)} of 5` : score.toFixed(3));

// `blind`: show only the image and its rank, nothing that could reveal the system.
export function card(result, index, { isRating = false, blind = false, choose }) {
  const element = fromTemplate("card-template");
  const image = element.querySelector("img");
  image.loading = index < NUM_EAGER ? "eager" : "lazy";
  show(image, result.preview_url);
  element.dataset.image = result.image_id;
  element.querySelector(".rank").textContent = index + 1;
  const button = element.querySelector("button");
  button.addEventListener("click", () => choose(index));
  const caption = element.querySelector(".caption");
  if (blind) {
    button.setAttribute("aria-label", `${index + 1}: ${result.caption || "no caption"}`);
    for (const part of [caption, element.querySelector(".score"), element.querySelector(".rank-change")]) part.remove();
    return element;
  }
  caption.textContent = result.caption || "no caption";
  caption.classList.toggle("none", !result.caption);
  caption.title = result.caption;
  element.querySelector("meter").value = isRating ? (result.score - 1) / 4 : Math.max(result.score, 0);
  element.querySelector("output").textContent = scoreText(result.score, isRating);
  for (const [event, on] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]]) {
    element.addEventListener(event, () => markSameImage(result.image_id, on));
  }
  return element;
}

function markSameImage(imageId, on) {
  for (const card of byId("results").querySelectorAll(`.card[data-image="${imageId}"]`)) card.classList.toggle("same-image", on);
}

// `before`: the index of the image in the baseline's results, -1 if it is not among them.
export function showRankChange(element, index, before) {
  const badge = element.querySelector(".rank-change");
  badge.className = "rank-change";
  badge.textContent = badge.title = "";
  if (before < 0) {
    badge.textContent = "new";
    badge.classList.add("new");
    badge.title = "Not among the results of the baseline";
  } else if (before !== index) {
    const up = before > index;
    badge.textContent = `${up ? "↑" : "↓"} ${Math.abs(before - index)}`;
    badge.classList.toggle("up", up);
    badge.title = `Number ${before + 1} of the baseline`;
  }
}
