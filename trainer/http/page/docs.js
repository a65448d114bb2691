/** The operations of the API: the page lists them, and its OpenAPI description says more about each. */

import { read } from "./api.js";
import { failure, h, scrolling, table } from "./elements.js";

/**
 * @typedef {{$ref?: string, type?: string, description?: string, default?: unknown, enum?: unknown[], const?: unknown,
 *   items?: Schema, anyOf?: Schema[], oneOf?: Schema[], properties?: Record<string, Schema>, required?: string[]}} Schema
 * @typedef {Record<string, {schema: Schema, example?: unknown}>} Content
 * @typedef {{name: string, in: string, required: boolean, schema: Schema, description?: string}} Parameter
 * @typedef {{operationId: string, summary: string, tags: string[], parameters: Parameter[], security: object[],
 *   requestBody?: {content: Content}, responses: Record<string, {description: string, content?: Content}>}} Operation
 * @typedef {{info: {title: string, version: string, description: string}, components: {schemas: Record<string, Schema>},
 *   paths: Record<string, Record<string, Operation>>}} Description
 */

/** @param {Operation} operation */
function described(operation) {
  const body = operation.requestBody?.content["application/json"];
  const answers = Object.entries(operation.responses).map(([status, answer]) => {
    const [media, content] = Object.entries(answer.content ?? {})[0] ?? [];
    return [
      status,
      answer.description,
      content && media === "application/json" ? type(content.schema) : (media ?? "–"),
    ];
  });
  const parameters = operation.parameters.map((one) => [
    h("code", {}, one.name),
    one.in,
    type(one.schema),
    one.required ? "required" : fallback(one.schema),
    one.description ?? "",
  ]);
  return [
    operation.security.length ? null : h("p", {}, "Needs no API key."),
    parameters.length ? table("Parameters", ["Parameter", "In", "Type", "Default", "Meaning"], parameters) : null,
    body ? h("p", {}, "Body: ", type(body.schema)) : null,
    body?.example === undefined ? null : scrolling("Example", h("pre", {}, JSON.stringify(body.example, null, 2))),
    table("Answers", ["Status", "Meaning", "Content"], answers),
  ];
}

/** @param {Schema} schema */
function record(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => [
    h("code", {}, name),
    type(field),
    schema.required?.includes(name) ? "required" : fallback(field),
    field.description ?? "",
  ]);
  return [
    h("p", {}, schema.description ?? ""),
    rows.length ? table("Fields", ["Field", "Type", "Default", "Meaning"], rows) : h("p", {}, type(schema)),
  ];
}

/** @param {Schema} schema @returns {Node} */
function type(schema) {
  const name = schema.$ref?.split("/").at(-1);
  if (name) return h("a", { href: `#${name}`, onclick: () => open(name) }, name);
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return h("span", {}, ...choices.flatMap((one, index) => [index ? " or " : "", type(one)]));
  if (schema.type === "array" && schema.items) return h("span", {}, "array of ", type(schema.items));
  const values = schema.enum ?? (schema.const === undefined ? [] : [schema.const]);
  return h(
    "span",
    {},
    values.length ? values.map((value) => JSON.stringify(value)).join(", ") : (schema.type ?? "any"),
  );
}

/** @param {Schema} schema */
function fallback(schema) {
  return schema.default === undefined ? "–" : JSON.stringify(schema.default);
}

/**
 * Fill details when they are opened for the first time.
 * @param {HTMLDetailsElement} details
 * @param {(api: Description) => (Node | null)[]} content
 */
function fillWhenOpened(details, content) {
  const place = h("div");
  details.append(place);
  details.addEventListener("toggle", async () => {
    if (!details.open || place.childElementCount) return;
    try {
      const parts = content(await description);
      place.replaceChildren(...parts.filter((part) => part !== null));
    } catch (error) {
      place.replaceChildren(failure(error));
    }
  });
}

/** @param {string} id */
function open(id) {
  const found = document.getElementById(id);
  if (found instanceof HTMLDetailsElement) found.open = true;
  return found;
}

/** @type {Promise<Description>} */
const description = read("/openapi.json", new AbortController().signal);

for (const details of document.querySelectorAll("details")) {
  fillWhenOpened(details, ({ paths }) =>
    Object.values(paths)
      .flatMap(Object.values)
      .filter(({ operationId }) => operationId === details.id)
      .flatMap(described),
  );
}
open(location.hash.slice(1));

const records = document.querySelector("[aria-labelledby=about-records]");
try {
  for (const [name, schema] of Object.entries((await description).components.schemas)) {
    const details = h("details", { id: name }, h("summary", {}, h("code", {}, name)));
    fillWhenOpened(details, () => record(schema));
    records?.append(details);
  }
  open(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  records?.append(failure(error));
}
