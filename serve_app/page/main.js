// Starts the page: one query, every system side by side.

import { call, connect, server } from "./api.js";
import { change, COUNTS, loadAddress, onChange, state } from "./search_state.js";
import * as beautiful from "./beautiful.js";
import * as blindComparison from "./blind_comparison.js";
import { onChoose } from "./result_columns.js";
import { byId, hideNotice, make, notice, onToggle, showPressed } from "./dom.js";
import * as filters from "./filters.js";
import * as imageQuery from "./image_query.js";
import * as keyboard from "./keyboard.js";
import * as imageComparison from "./image_comparison.js";
import * as rivals from "./rivals.js";
import * as search from "./search.js";
import * as tastes from "./tastes.js";
import * as theme from "./theme.js";
import * as viewer from "./viewer.js";

let ready = false; // the server has answered
let availableTastes = [];  // from /v1/tastes

function drawTeacher() {
  byId("teacher").hidden = !server.names.includes("teacher");
  byId("teacher").disabled = state.blind;
  showPressed(byId("teacher"), state.teacher);
}

const counts = () => {
  const possible = COUNTS.filter((count) => count <= server.max_k);
  return possible.length ? possible : [server.max_k];
};

function followAddress() {
  search.stopTyping();
  loadAddress({
    counts: counts(),
    tastes: availableTastes,
    maxBeauty: Number(byId("beautiful").max),
    rivals: rivals.available(),
    systems: server.names,
    blind: blindComparison.isAvailable(),
  });
}

async function start() {
  hideNotice();
  const health = byId("health");
  try {
    await connect();
    const [examples, { tastes: found }] = await Promise.all([call("v1/examples"), call("v1/tastes")]);
    availableTastes = found;
    byId("k").replaceChildren(...counts().map((count) => new Option(`${count} images`, count)));
    const sizes = Object.values(server.systems).map((system) => system.num_rows).filter((rows) => rows !== null);
    health.textContent = sizes.length ? `${Math.max(...sizes).toLocaleString("en")} images` : "connected";
    health.className = "health ok";
    tastes.layOut(availableTastes);
    rivals.layOut();
    showExamples(examples.queries);
    ready = true;
    followAddress();
  } catch (error) {
    health.textContent = "no connection";
    health.className = "health down";
    notice(error);
  }
}

function showExamples(queries) {
  search.setExample(queries[0] ?? "");
  blindComparison.setExamples(queries);
  const box = byId("examples");
  box.replaceChildren(box.firstElementChild, ...queries.map((query) => {
    const button = make("button", query, "pill");
    button.type = "button";
    button.addEventListener("click", () => search.submit(query));
    return button;
  }));
  box.hidden = queries.length === 0;
}

for (const part of [search, imageQuery, beautiful, tastes, filters, rivals, blindComparison, imageComparison, viewer, keyboard]) part.listen();
for (const draw of [search.draw, imageQuery.draw, beautiful.draw, tastes.draw, filters.draw, rivals.draw, blindComparison.draw, drawTeacher]) onChange(draw);
onChange(imageComparison.stop);
onChange(search.run);
onChoose((column, index) => (imageComparison.isActive() ? imageComparison.finish(index) : viewer.open(column, index)));
onToggle(byId("teacher"), (teacher) => change({ teacher }));
theme.listen(byId("theme"));
byId("retry").addEventListener("click", () => (ready ? search.run() : start()));
addEventListener("popstate", () => ready && followAddress());
if (matchMedia("(hover: hover)").matches) byId("query").focus(); // on a phone this would open the keyboard
start();
