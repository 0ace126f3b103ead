// The dialog with one large image: its facts, its heat map, and actions on it.

import { feedback } from "./api.js";
import { change } from "./search_state.js";
import { scoreText } from "./result_card.js";
import { columns, titleOf } from "./result_columns.js";
import { byId, make, onToggle, showPressed } from "./dom.js";
import * as imageComparison from "./image_comparison.js";
import { release, show } from "./previews.js";
import * as heatmap from "./heatmap.js";

let column = null;
let index = 0;

const result = () => column.results[index];

export function open(newColumn, newIndex) {
  draw(newColumn, newIndex);
  byId("viewer").showModal();
  if (column.side) return; // opening an image in a blind comparison is not a vote
  const { answer, image_id } = result();
  const results = answer.results.map((one) => one.image_id);
  feedback({ kind: "click", search_id: answer.search_id, results, image_id }, { keepalive: true })
    .catch(() => {}); // clicks are recorded in the background, so errors are not shown
}

function draw(newColumn, newIndex) {
  column = newColumn;
  index = newIndex;
  const { answer, caption, preview_url: url } = result();
  show(byId("viewer-image"), url);
  byId("viewer-image").alt = caption;
  byId("viewer-caption").textContent = caption || "No caption";
  byId("viewer-facts").replaceChildren(...facts().flatMap(([term, value]) => [make("dt", term), make("dd", value)]));
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === column.results.length - 1;
  byId("why").hidden = !answer.query || Boolean(column.side);
  byId("like").hidden = byId("better").hidden = Boolean(column.side);
  byId("better").disabled = answer.results.length < 2;
  showHeatmap(false);
}

function facts() {
  const { answer, score, image_id: id, width_px: width, height_px: height } = result();
  const size = ["Original", `${width} × ${height} px`];
  if (column.side) return [size];
  const ranks = columns.filter((one) => one.answers.length).map((one) => {
    const rank = one.indexOf(id);
    return [titleOf(one.system), rank < 0 ? "not among the results" : `number ${rank + 1}`];
  });
  return [["Score", scoreText(score, answer.system === "teacher")], ...ranks, size, ["Image", id.slice(0, 16)]];
}

async function showHeatmap(on) {
  heatmap.clear();
  showPressed(byId("why"), on);
  byId("why-problem").textContent = "";
  if (!on) return;
  const shown = result();
  try {
    await heatmap.paint(byId("viewer-image"), shown.image_id, shown.answer);
  } catch (error) {
    if (shown !== result()) return;
    showPressed(byId("why"), false);
    byId("why-problem").textContent = error.message;
  }
}

export function step(by) {
  if (column.results[index + by]) draw(column, index + by);
}

export const close = () => byId("viewer").close();

function moreLikeThis() {
  const { image_id: id } = result();
  close();
  change({ image: { id }, words: "" });
  scrollTo({ top: 0 });
}

export function listen() {
  onToggle(byId("why"), showHeatmap);
  byId("like").addEventListener("click", moreLikeThis);
  byId("better").addEventListener("click", () => {
    close();
    imageComparison.start(column, index);
  });
  byId("close").addEventListener("click", close);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) close(); });
  byId("viewer").addEventListener("close", () => {
    heatmap.clear();
    release(byId("viewer-image"));
  });
}
