// The search state: one object that every control reads and changes. It is kept in the address and the history.

export const COUNTS = [6, 12, 24, 48];
const DIVERSITY = 0.5;
const HALF = 0.5;
const START = { words: "", k: 12, image: null, weight: HALF, beauty: 0, tastes: {}, filters: {}, diverse: false, blind: false, teacher: false, rivals: [] };

// words: the text of the search box, with negatives. image: null, {id}, or {data, url, name} of a file: base64,
// blob: URL, file name. filters: name -> text, as in FILTERS. rivals: names of systems.
export const state = structuredClone(START);

const listeners = [];
export const onChange = (listener) => listeners.push(listener);

// kind: "step" adds an entry to the history. Consecutive changes of kind "typing" share one entry.
export function change(patch, kind = "step") {
  Object.assign(state, patch);
  remember(kind);
  for (const listener of listeners) listener();
}

// ---- words

const NEGATIVE = /(?:^|\s)-(?:"([^"]*)(?:"|$)|([^\s"]\S*))/g;

// `red boat -people -"at night"` -> {query, negatives}
export function parseWords(text) {
  const negatives = [];
  const query = text.replace(NEGATIVE, (_, quoted, word) => {
    const negative = (quoted ?? word).trim();
    if (negative) negatives.push(negative);
    return " ";
  });
  return { query: query.replace(/\s+/g, " ").trim(), negatives };
}

// ---- the request

const list = (text) => text.split(",").map((name) => name.trim()).filter(Boolean);
const isList = (text) => list(text).length > 0;
const within = (low, high) => (text) => text.trim() !== "" && Number(text) >= low && Number(text) <= high;
const isPixels = (text) => within(1, 1_000_000)(text) && Number.isInteger(Number(text));
// The days that the server accepts in every time zone. The inputs have the same bounds.
const isDay = (text) =>
  /^\d{4}-\d\d-\d\d$/.test(text) && text >= "1001-01-02" && text <= "9998-12-30" && !Number.isNaN(Date.parse(`${text}T00:00`));
const midnight = (day) => new Date(`${day}T00:00`).toISOString(); // in the local time zone

// name of the input and the URL parameter -> [field of the request, text -> value, text -> whether it is valid]
export const FILTERS = {
  tags: ["tags_any", list, isList],
  source: ["sources", list, isList],
  width: ["min_width_px", Number, isPixels],
  height: ["min_height_px", Number, isPixels],
  from: ["added_from", midnight, isDay],
  before: ["added_before", midnight, isDay],
  beauty: ["min_aesthetic", Number, within(0, 1)],
};

export const isFiltered = () => Object.keys(state.filters).length > 0;

// The body of /v1/search for a system. `fallback`: the words to use if nothing was typed.
export function requestFor(system, fallback = "") {
  const { query, negatives } = parseWords(state.words || (state.image ? "" : fallback));
  const filters = Object.entries(state.filters).map(([name, value]) => [FILTERS[name][0], FILTERS[name][1](value)]);
  const { id, data } = state.image ?? {};
  return {
    query,
    k: state.k,
    system,
    ...(state.image && { image: id ? { image_id: id } : { data } }),
    ...(state.image && query && { image_weight: state.weight }),
    ...(negatives.length && { negatives }),
    ...(state.beauty && { beauty: state.beauty }),
    ...(Object.keys(state.tastes).length && { tastes: state.tastes }),
    ...(filters.length && { filters: Object.fromEntries(filters) }),
    ...(state.diverse && { diversity: { weight: DIVERSITY } }),
  };
}

// ---- the address and the history

const uploads = []; // an address cannot hold a file, so entries of the history refer to this list by index
let typing = false;

function address() {
  const parameters = new URLSearchParams();
  const words = state.words.trim();
  if (words) parameters.set("q", words);
  if (words || state.k !== START.k) parameters.set("k", state.k);
  if (state.image?.id) parameters.set("image_id", state.image.id);
  if (state.image && state.weight !== HALF) parameters.set("weight", state.weight);
  if (state.beauty) parameters.set("beautiful", state.beauty); // `beauty` is the filter
  for (const [name, value] of Object.entries(state.tastes)) parameters.set(`taste.${name}`, value);
  for (const [name, value] of Object.entries(state.filters)) parameters.set(name, value);
  if (state.diverse) parameters.set("varied", "1");
  for (const name of [...state.rivals, ...(state.teacher ? ["teacher"] : [])]) parameters.set(name, "1");
  if (state.blind) parameters.set("mode", "blind");
  return parameters.size ? `?${parameters}` : location.pathname;
}

function remember(kind) {
  if (state.image?.data && !uploads.includes(state.image)) uploads.push(state.image);
  const upload = state.image?.data ? uploads.indexOf(state.image) : null;
  const next = new URL(address(), location.href);
  const same = next.search === location.search && upload === (history.state?.upload ?? null);
  if (same || (kind === "typing" && typing)) history.replaceState({ upload }, "", next);
  else history.pushState({ upload }, "", next);
  typing = kind === "typing";
}

const clamp = (value, low, high) => Math.min(Math.max(Number(value) || 0, low), high);

// Set the state from the address, ignoring invalid parameters. The arguments: what the controls offer.
export function loadAddress({ counts, tastes, maxBeauty, rivals, systems, blind }) {
  const parameters = new URLSearchParams(location.search);
  const loaded = structuredClone(START);
  loaded.words = parameters.get("q") ?? "";
  const defaultCount = counts.includes(START.k) ? START.k : counts.at(-1);
  loaded.k = counts.includes(Number(parameters.get("k"))) ? Number(parameters.get("k")) : defaultCount;
  const id = /^[0-9a-f]{64}$/.test(parameters.get("image_id")) && parameters.get("image_id");
  loaded.image = uploads[history.state?.upload] ?? (id ? { id } : null);
  const weight = parameters.get("weight") ?? "";
  if (within(0, 1)(weight)) loaded.weight = Number(weight);
  loaded.beauty = clamp(parameters.get("beautiful"), 0, maxBeauty);
  for (const { name } of tastes) {
    const value = clamp(parameters.get(`taste.${name}`), -1, 1);
    if (value) loaded.tastes[name] = value;
  }
  for (const [name, [, , isValid]] of Object.entries(FILTERS)) if (isValid(parameters.get(name) ?? "")) loaded.filters[name] = parameters.get(name);
  loaded.diverse = parameters.has("varied");
  loaded.rivals = rivals.filter((name) => parameters.has(name));
  loaded.teacher = parameters.has("teacher") && systems.includes("teacher");
  loaded.blind = blind && parameters.get("mode") === "blind";
  typing = false;
  Object.assign(state, loaded);
  for (const listener of listeners) listener();
}
