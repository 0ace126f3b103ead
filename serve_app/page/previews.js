// Shows previews in <img>. An <img> cannot send a key, so if one is required the bytes are fetched as a blob.

import { blob, server } from "./api.js";

const loading = new Map(); // <img> -> {controller, url}

export function show(image, url) {
  release(image);
  if (!server.keys_required || url.startsWith("blob:")) {
    image.src = url;
    return;
  }
  const entry = { controller: new AbortController(), url: "" };
  loading.set(image, entry);
  blob(url, entry.controller.signal).then((content) => {
    if (loading.get(image) !== entry) return;
    entry.url = URL.createObjectURL(content);
    image.src = entry.url;
  }).catch(() => image.removeAttribute("src")); // the frame stays empty, as for a deleted image
}

// Stop loading and free the image, or all images inside an element that will be removed.
export function release(element) {
  for (const image of element.matches("img") ? [element] : element.querySelectorAll("img")) {
    const entry = loading.get(image);
    if (!entry) continue;
    entry.controller.abort();
    if (entry.url) URL.revokeObjectURL(entry.url);
    loading.delete(image);
  }
}
