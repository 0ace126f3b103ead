// One image large: what is known of it, why it was found, more like it.

import { feedback } from "./api.js";
import { change } from "./search_state.js";
import { scoreText } from "./result_card.js";
import { columns, titleOf } from "./result_columns.js";
import { byId, make, onToggle, showPressed } from "./dom.js";
import * as prefer from "./image_comparison.js";
import { release, show } from "./previews.js";
import * as why from "./heatmap.js";

let column = null;
let place = 0;

const result = () => column.results[place];

export function open(ofColumn, atPlace) {
  draw(ofColumn, atPlace);
  byId("viewer").showModal();
  if (column.side) return; // in a blind comparison looking closer is no choice
  const { answer, image_id } = result();
  const results = answer.results.map((one) => one.image_id);
  feedback({ kind: "click", search_id: answer.search_id, results, image_id }, { keepalive: true })
    .catch(() => {}); // the person came to look, not to vote: nothing to tell
}

function draw(ofColumn, atPlace) {
  column = ofColumn;
  place = atPlace;
  const { answer, caption, preview_url: url } = result();
  show(byId("viewer-image"), url);
  byId("viewer-image").alt = caption;
  byId("viewer-caption").textContent = caption || "No caption";
  byId("viewer-facts").replaceChildren(...facts().flatMap(([term, value]) => [make("dt", term), make("dd", value)]));
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === column.results.length - 1;
  byId("why").hidden = !answer.query || Boolean(column.side);
  byId("like").hidden = byId("better").hidden = Boolean(column.side);
  byId("better").disabled = answer.results.length < 2;
  explain(false);
}

function facts() {
  const { answer, score, image_id: id, width_px: width, height_px: height } = result();
  const size = ["Original", `${width} × ${height} px`];
  if (column.side) return [size];
  const places = columns.filter((one) => one.answers.length).map((one) => {
    const found = one.place(id);
    return [titleOf(one.system), found < 0 ? "not among the results" : `number ${found + 1}`];
  });
  return [["Score", scoreText(score, answer.system === "teacher")], ...places, size, ["Image", id.slice(0, 16)]];
}

async function explain(on) {
  why.clear();
  showPressed(byId("why"), on);
  byId("why-problem").textContent = "";
  if (!on) return;
  const looked = result();
  try {
    await why.paint(byId("viewer-image"), looked.image_id, looked.answer);
  } catch (error) {
    if (looked !== result()) return;
    showPressed(byId("why"), false);
    byId("why-problem").textContent = error.message;
  }
}

export function step(by) {
  if (column.results[place + by]) draw(column, place + by);
}

export const close = () => byId("viewer").close();

function moreLikeThis() {
  const { image_id: id } = result();
  close();
  change({ image: { id }, words: "" });
  scrollTo({ top: 0 });
}

export function listen() {
  onToggle(byId("why"), explain);
  byId("like").addEventListener("click", moreLikeThis);
  byId("better").addEventListener("click", () => {
    close();
    prefer.start(column, place);
  });
  byId("close").addEventListener("click", close);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("viewer").addEventListener("click", (event) => { if (event.target === byId("viewer")) close(); });
  byId("viewer").addEventListener("close", () => {
    why.clear();
    release(byId("viewer-image"));
  });
}
