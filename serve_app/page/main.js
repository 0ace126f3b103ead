// The page of Kallos: one query, every system, side by side. This part starts the others.

import { call, meetServer, server } from "./api.js";
import { change, COUNTS, followAddress, onChange, asked } from "./search_state.js";
import * as blind from "./blind_comparison.js";
import { onChoose } from "./result_columns.js";
import { byId, hideNotice, make, notice, onToggle, showPressed } from "./dom.js";
import * as filters from "./filters.js";
import * as image from "./image_query.js";
import * as keys from "./keyboard.js";
import * as prefer from "./image_comparison.js";
import * as search from "./search.js";
import * as tastes from "./tastes.js";
import * as theme from "./theme.js";
import * as viewer from "./viewer.js";

let ready = false; // the server was met
let offered = [];  // of /v1/tastes

function drawTeacher() {
  byId("teacher").hidden = !server.names.includes("teacher");
  byId("teacher").disabled = asked.blind;
  showPressed(byId("teacher"), asked.teacher);
}

const counts = () => {
  const possible = COUNTS.filter((count) => count <= server.max_k);
  return possible.length ? possible : [server.max_k];
};

function follow() {
  search.stopTyping();
  followAddress({ counts: counts(), tastes: offered, systems: server.names, blind: blind.isPossible() });
}

async function start() {
  hideNotice();
  const health = byId("health");
  try {
    await meetServer();
    const [examples, leanings] = await Promise.all([call("v1/examples"), call("v1/tastes")]);
    offered = leanings.tastes;
    byId("k").replaceChildren(...counts().map((count) => new Option(`${count} images`, count)));
    const counted = Object.values(server.systems).map((system) => system.num_rows).filter((rows) => rows !== null);
    health.textContent = counted.length ? `${Math.max(...counted).toLocaleString("en")} images` : "connected";
    health.className = "health ok";
    tastes.layOut(offered);
    offer(examples.queries);
    ready = true;
    follow();
  } catch (error) {
    health.textContent = "no connection";
    health.className = "health down";
    notice(error);
  }
}

function offer(queries) {
  search.offer(queries[0] ?? "");
  blind.offer(queries);
  const box = byId("examples");
  box.replaceChildren(box.firstElementChild, ...queries.map((query) => {
    const button = make("button", query, "pill");
    button.type = "button";
    button.addEventListener("click", () => search.submit(query));
    return button;
  }));
  box.hidden = queries.length === 0;
}

for (const part of [search, image, tastes, filters, blind, prefer, viewer, keys]) part.listen();
for (const draw of [search.draw, image.draw, tastes.draw, filters.draw, blind.draw, drawTeacher]) onChange(draw);
onChange(prefer.stop);
onChange(search.run);
onChoose((column, place) => (prefer.isOn() ? prefer.finish(place) : viewer.open(column, place)));
onToggle(byId("teacher"), (teacher) => change({ teacher }));
theme.listen(byId("theme"));
byId("retry").addEventListener("click", () => (ready ? search.run() : start()));
addEventListener("popstate", () => ready && follow());
if (matchMedia("(hover: hover)").matches) byId("query").focus(); // on a phone it would raise the keyboard
start();
