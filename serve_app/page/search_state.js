// What is asked for: one object that every control reads and changes, and that the address keeps.

export const COUNTS = [6, 12, 24, 48];
const DIVERSITY = 0.5;
const HALF = 0.5;
const START = { words: "", k: 12, image: null, weight: HALF, tastes: {}, filters: {}, diverse: false, blind: false, teacher: false };

export const asked = structuredClone(START);

// words: as typed, negatives and all. image: null, {id} or {data, url, name}: base64, blob: address, file name.
// filters: as the address has them, see FILTERS.

const listeners = [];
export const onChange = (listener) => listeners.push(listener);

// how: "settled" makes an entry in the history, "typing" one for all that is typed without a pause in between.
export function change(patch, how = "settled") {
  Object.assign(asked, patch);
  remember(how);
  for (const listener of listeners) listener();
}

// ---- words

const NEGATIVE = /(?:^|\s)-(?:"([^"]*)(?:"|$)|([^\s"]\S*))/g;

// `red boat -people -"at night"` -> what to look for and what not to show.
export function parse(text) {
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
const areNames = (text) => list(text).length > 0;
const within = (low, high) => (text) => text.trim() !== "" && Number(text) >= low && Number(text) <= high;
const isSide = (text) => within(1, 1_000_000)(text) && Number.isInteger(Number(text));
// The days that the server takes in every time zone; the inputs have the same bounds.
const isDay = (text) =>
  /^\d{4}-\d\d-\d\d$/.test(text) && text >= "1001-01-02" && text <= "9998-12-30" && !Number.isNaN(Date.parse(`${text}T00:00`));
const midnight = (day) => new Date(`${day}T00:00`).toISOString(); // of the person's own time zone

// name in the address and of the input -> field of the request, value of that field, whether a text is one
export const FILTERS = {
  tags: ["tags_any", list, areNames],
  source: ["sources", list, areNames],
  width: ["min_width_px", Number, isSide],
  height: ["min_height_px", Number, isSide],
  from: ["added_from", midnight, isDay],
  before: ["added_before", midnight, isDay],
  beauty: ["min_aesthetic", Number, within(0, 1)],
};

export const isFiltered = () => Object.keys(asked.filters).length > 0;

// The body of /v1/search for a system. `instead`: words to use where none were typed.
export function question(system, instead = "") {
  const { query, negatives } = parse(asked.words || (asked.image ? "" : instead));
  const filters = Object.entries(asked.filters).map(([name, value]) => [FILTERS[name][0], FILTERS[name][1](value)]);
  const { id, data } = asked.image ?? {};
  return {
    query,
    k: asked.k,
    system,
    ...(asked.image && { image: id ? { image_id: id } : { data } }),
    ...(asked.image && query && { image_weight: asked.weight }),
    ...(negatives.length && { negatives }),
    ...(Object.keys(asked.tastes).length && { tastes: asked.tastes }),
    ...(filters.length && { filters: Object.fromEntries(filters) }),
    ...(asked.diverse && { diversity: { weight: DIVERSITY } }),
  };
}

// ---- the address and the history

const uploads = []; // an address cannot hold a file: the history's entries number those of this visit
let typing = false;

function address() {
  const wanted = new URLSearchParams();
  const words = asked.words.trim();
  if (words) wanted.set("q", words);
  if (words || asked.k !== START.k) wanted.set("k", asked.k);
  if (asked.image?.id) wanted.set("image_id", asked.image.id);
  if (asked.image && asked.weight !== HALF) wanted.set("weight", asked.weight);
  for (const [name, value] of Object.entries(asked.tastes)) wanted.set(`taste.${name}`, value);
  for (const [name, value] of Object.entries(asked.filters)) wanted.set(name, value);
  if (asked.diverse) wanted.set("varied", "1");
  if (asked.teacher) wanted.set("teacher", "1");
  if (asked.blind) wanted.set("mode", "blind");
  return wanted.size ? `?${wanted}` : location.pathname;
}

function remember(how) {
  if (asked.image?.data && !uploads.includes(asked.image)) uploads.push(asked.image);
  const upload = asked.image?.data ? uploads.indexOf(asked.image) : null;
  const next = new URL(address(), location.href);
  const same = next.search === location.search && upload === (history.state?.upload ?? null);
  if (same || (how === "typing" && typing)) history.replaceState({ upload }, "", next);
  else history.pushState({ upload }, "", next);
  typing = how === "typing";
}

const clamp = (value, low, high) => Math.min(Math.max(Number(value) || 0, low), high);

// What the address asks for; what it names wrongly is left out. `choices`: what the controls offer.
export function followAddress({ counts, tastes, systems, blind }) {
  const wanted = new URLSearchParams(location.search);
  const state = structuredClone(START);
  state.words = wanted.get("q") ?? "";
  const nearest = counts.includes(START.k) ? START.k : counts.at(-1);
  state.k = counts.includes(Number(wanted.get("k"))) ? Number(wanted.get("k")) : nearest;
  const id = /^[0-9a-f]{64}$/.test(wanted.get("image_id")) && wanted.get("image_id");
  state.image = uploads[history.state?.upload] ?? (id ? { id } : null);
  const weight = wanted.get("weight") ?? "";
  if (within(0, 1)(weight)) state.weight = Number(weight);
  for (const { name } of tastes) {
    const value = clamp(wanted.get(`taste.${name}`), -1, 1);
    if (value) state.tastes[name] = value;
  }
  for (const [name, [, , fits]] of Object.entries(FILTERS)) if (fits(wanted.get(name) ?? "")) state.filters[name] = wanted.get(name);
  state.diverse = wanted.has("varied");
  state.teacher = wanted.has("teacher") && systems.includes("teacher");
  state.blind = blind && wanted.get("mode") === "blind";
  typing = false;
  Object.assign(asked, state);
  for (const listener of listeners) listener();
}
