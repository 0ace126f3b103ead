// The API's own page, drawn from /openapi.json: nothing is loaded from elsewhere.
"use strict";

const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};

let schemas = {};
const follow = (schema) => (schema?.$ref ? schemas[schema.$ref.split("/").pop()] : schema) ?? {};

function typeOf(schema) {
  if (schema.enum) return schema.enum.map((value) => `"${value}"`).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `${typeOf(schema.items)}[]`;
  if (schema.additionalProperties?.$ref) return `{name: ${typeOf(schema.additionalProperties)}}`;
  const bounds = [schema.minimum, schema.maximum].every((bound) => bound !== undefined) ? ` ${schema.minimum} to ${schema.maximum}` : "";
  const length = schema.maxLength ? `, at most ${schema.maxLength} characters` : "";
  return `${schema.type ?? "any"}${bounds}${length}`;
}

function fields(title, schema) {
  const table = make("table");
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = table.insertRow();
    row.insertCell().append(make("code", name));
    const fallback = field.default === undefined ? "" : `, default ${JSON.stringify(field.default)}`;
    row.insertCell().textContent = typeOf(field) + fallback;
    row.insertCell().textContent = field.description ?? "";
  }
  return table.rows.length ? [make("h3", title), table] : [];
}

function example(verb, path, schema) {
  const address = location.origin + location.pathname.replace(/\/docs\/?$/, "") + path;
  if (verb !== "post") return `curl '${address}'`;
  const body = { query: schema.properties.query.examples[0] };
  return `curl '${address}' -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body)}'`;
}

function operation(path, verb, details) {
  const element = make("section", undefined, "operation");
  const heading = make("h2");
  heading.append(make("span", verb.toUpperCase(), "verb"), make("code", path));
  const request = follow(details.requestBody?.content["application/json"]?.schema);
  const answer = Object.values(details.responses["200"].content ?? {})[0]?.schema;
  element.append(heading, make("p", details.summary), ...fields("Request", request), ...fields("Answer", follow(answer)));
  for (const inner of Object.values(follow(answer).properties ?? {})) {
    const part = inner.items ?? inner.additionalProperties ?? inner;
    if (part.$ref) element.append(...fields(part.$ref.split("/").pop(), follow(part)));
  }
  element.append(make("pre", example(verb, path, request)));
  return element;
}

async function start() {
  const box = document.getElementById("operations");
  try {
    const api = await (await fetch("openapi.json")).json();
    schemas = api.components?.schemas ?? {};
    for (const [path, verbs] of Object.entries(api.paths)) {
      for (const [verb, details] of Object.entries(verbs)) box.append(operation(path, verb, details));
    }
  } catch (error) {
    box.append(make("p", `The document could not be read: ${error.message}`));
  }
}

start();
