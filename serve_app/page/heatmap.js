// The heat map over an image: how similar each of its parts is to the query.

import { call, server } from "./api.js";
import { byId } from "./dom.js";

// Colours from the least to the most similar part: red, green, blue (0 to 255) and opacity (0 to 1).
const RAMP = [[20, 8, 42, 0.84], [124, 26, 92, 0.66], [230, 84, 40, 0.5], [255, 224, 110, 0.55]];
const SCALE = 2; // pixels of the map per pixel of the preview
const LEGEND_STEPS = 64;

let latest = 0; // number of the last request, so that a late response does not paint over another image

export function clear() {
  latest += 1;
  byId("heat").hidden = byId("legend").hidden = true;
}

export async function paint(image, imageId, answer) {
  const request = ++latest;
  const parameters = new URLSearchParams({ query: answer.query, system: systemOf(answer) });
  const { values } = await call(`v1/images/${imageId}/why?${parameters}`);
  await image.decode();
  if (request !== latest) return;
  const numbers = values.flat();
  const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const canvas = byId("heat");
  canvas.width = image.naturalWidth * SCALE;
  canvas.height = image.naturalHeight * SCALE;
  paintRows(canvas, values.map((row) => row.map((value) => (high > low ? (value - low) / (high - low) : 0))));
  paintRows(byId("legend-bar"), [Array.from({ length: LEGEND_STEPS }, (_, step) => step / (LEGEND_STEPS - 1))]);
  byId("legend-low").textContent = `${low.toFixed(2)} least`;
  byId("legend-high").textContent = `most ${high.toFixed(2)}`;
  canvas.hidden = byId("legend").hidden = false;
}

// The system that computes the map. For the teacher it is the one with the encoder that it searched with.
function systemOf({ system, encoder }) {
  if (system in server.systems) return system;
  return Object.keys(server.systems).find((name) => server.systems[name].encoder === encoder) ?? "";
}

function colour(value) {
  const position = value * (RAMP.length - 1);
  const below = Math.min(Math.floor(position), RAMP.length - 2);
  const share = position - below;
  const [red, green, blue, opacity] = RAMP[below].map((from, part) => from + share * (RAMP[below + 1][part] - from));
  return [red, green, blue, 255 * opacity];
}

// Paint rows of values in [0, 1] over the whole canvas; the browser interpolates between them.
function paintRows(canvas, rows) {
  const small = new OffscreenCanvas(rows[0].length, rows.length);
  const pixels = Uint8ClampedArray.from(rows.flat().flatMap(colour));
  small.getContext("2d").putImageData(new ImageData(pixels, small.width), 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}
