// Search by image: a file that is picked, dropped or pasted, or an image in the store.

import { server } from "./api.js";
import { state, change } from "./search_state.js";
import { byId, debounced, notice } from "./dom.js";
import { release, show } from "./previews.js";

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

async function searchWith(file) {
  // Browsers do not know the type of every image, HEIC and JPEG XL for example: the server looks into the file.
  if (!file.type.startsWith("image/") && !["", "application/octet-stream"].includes(file.type)) {
    notice({ title: "Not an image", message: `${file.name} is not an image file.` });
    return;
  }
  if (file.size > server.max_upload_bytes) {
    const message = `${file.name} has ${megabytes(file.size)}. This server accepts at most ${megabytes(server.max_upload_bytes)}.`;
    notice({ title: "The image is too large", message });
    return;
  }
  const data = await base64(file);
  change({ image: { data, url: URL.createObjectURL(file), name: file.name }, words: byId("query").value });
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result.slice(reader.result.indexOf(",") + 1)));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

export function draw() {
  const { image } = state;
  byId("image").hidden = !image;
  byId("image-pick").hidden = !server.max_upload_bytes;
  byId("image-mix").hidden = !image || !state.words.trim();
  byId("image-weight").value = state.weight;
  if (!image) {
    release(byId("image-thumb"));
    byId("image-thumb").removeAttribute("src");
    return;
  }
  show(byId("image-thumb"), image.url ?? `v1/images/${image.id}/preview`);
  byId("image-name").textContent = image.name || "An image from the results";
}

export function listen() {
  const input = byId("image-file");
  byId("image-pick").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files[0]) searchWith(input.files[0]);
    input.value = ""; // so that the same file can be picked again
  });
  byId("image-remove").addEventListener("click", () => {
    change({ image: null });
    byId("query").focus();
  });
  const applyWeight = debounced(() => change({ weight: Number(byId("image-weight").value) }, "typing"));
  byId("image-weight").addEventListener("input", applyWeight);
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    searchWith(file);
  });
  listenForDrops();
}

function listenForDrops() {
  const carriesFile = (event) => event.dataTransfer.types.includes("Files") && server.max_upload_bytes > 0;
  const hint = (on) => { byId("drop").hidden = !on; };
  addEventListener("dragover", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    hint(true);
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) hint(false); });
  addEventListener("drop", (event) => {
    hint(false);
    if (!carriesFile(event)) return;
    event.preventDefault();
    searchWith(event.dataTransfer.files[0]);
  });
}
