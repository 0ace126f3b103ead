// The API page, drawn from /openapi.json without third-party scripts.

import { byId, make } from "./dom.js";

let schemas = {};
const nameOf = (schema) => schema.$ref?.split("/").pop();
const resolve = (schema) => (schema?.$ref ? schemas[nameOf(schema)] : schema) ?? {};
// The alternative forms of a request or response body, each as [name, schema].
const forms = (schema) => (schema?.oneOf ?? schema?.anyOf ?? [schema]).map((form) => [form && nameOf(form), resolve(form)]);

function typeOf(schema) {
  if (schema.enum) return schema.enum.map((value) => `"${value}"`).join(" | ");
  if (schema.const !== undefined) return `"${schema.const}"`;
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.$ref) return nameOf(schema);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.additionalProperties) return `{name: ${typeOf(schema.additionalProperties)}}`;
  const bounds = [schema.minimum, schema.maximum].every((bound) => bound !== undefined) ? ` ${schema.minimum} to ${schema.maximum}` : "";
  const length = schema.maxLength ? `, at most ${schema.maxLength} characters` : "";
  return `${schema.type ?? "any"}${bounds}${length}`;
}

function row(table, name, schema, description) {
  const line = table.insertRow();
  line.insertCell().append(make("code", name));
  const fallback = schema.default === undefined ? "" : `, default ${JSON.stringify(schema.default)}`;
  line.insertCell().textContent = typeOf(schema) + fallback;
  line.insertCell().textContent = description ?? "";
}

function fields(title, schema) {
  const table = make("table");
  for (const [name, field] of Object.entries(schema.properties ?? {})) row(table, name, field, field.description);
  return table.rows.length ? [make("h3", title), table] : [];
}

function parameters(list) {
  const table = make("table");
  for (const { name, schema, description } of list ?? []) row(table, name, schema, description);
  return table.rows.length ? [make("h3", "Parameters"), table] : [];
}

// References to the schemas of its fields, such as `Filters`.
const fieldSchemas = (schema) =>
  Object.values(schema.properties ?? {})
    .flatMap((field) => field.anyOf ?? [field])
    .map((field) => field.items ?? (field.additionalProperties || field))
    .filter((field) => field.$ref);

// One table for each form and each schema inside it. `drawn`: names of the schemas that have a table already.
function tables(title, schema, drawn) {
  return forms(schema).flatMap(([name, form], index, all) => {
    if (name) drawn.add(name);
    const inner = fieldSchemas(form).filter((part) => !drawn.has(nameOf(part)));
    const heading = all.length > 1 ? `${title}, form ${index + 1}: ${name}` : title;
    return [...fields(heading, form), ...inner.flatMap((part) => tables(nameOf(part), part, drawn))];
  });
}

function example(verb, path, schema) {
  const address = location.origin + location.pathname.replace(/\/docs\/?$/, "") + path;
  const sample = ([name, field]) => field.examples && [name, field.examples[0]];
  const [, first] = forms(schema)[0];
  const body = Object.fromEntries(Object.entries(first.properties ?? {}).map(sample).filter(Boolean));
  if (verb === "get") return `curl '${address}'`;
  if (!Object.keys(body).length) return `curl -X ${verb.toUpperCase()} '${address}'`;
  return `curl '${address}' -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(body)}'`;
}

function operation(path, verb, details) {
  const element = make("section", undefined, "operation");
  const heading = make("h2");
  heading.append(make("span", verb.toUpperCase(), "verb"), make("code", path));
  const request = details.requestBody?.content["application/json"]?.schema;
  const response = Object.values(details.responses["200"].content ?? {})[0]?.schema;
  const drawn = new Set();
  element.append(heading, make("p", details.summary), ...parameters(details.parameters));
  element.append(...tables("Request", request, drawn), ...tables("Response", response, drawn));
  element.append(make("pre", example(verb, path, request)));
  return element;
}

async function start() {
  const box = byId("operations");
  try {
    const api = await (await fetch("openapi.json")).json();
    schemas = api.components?.schemas ?? {};
    for (const [path, verbs] of Object.entries(api.paths)) {
      for (const [verb, details] of Object.entries(verbs)) box.append(operation(path, verb, details));
    }
  } catch (error) {
    box.append(make("p", `openapi.json could not be read: ${error.message}`));
  }
}

start();
