/** The operations of the API, from its OpenAPI description. */

import { failure, h, scrolling, section, table } from "./elements.js";

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

const main = /** @type {HTMLElement} */ (document.getElementById("main"));

/** @param {Description} api */
function show(api) {
  const all = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  );
  const tags = [...new Set(all.map(({ operation }) => operation.tags[0] ?? ""))];
  return [
    h("h1", { tabindex: -1 }, `HTTP API ${api.info.version}`),
    h(
      "p",
      {},
      "Send an API key in the header X-Api-Key, or as Authorization: Bearer KEY. A server of your own machine without keys needs none. Errors are JSON: code, message, request_id, details. ",
      h("a", { href: "/openapi.json" }, "openapi.json"),
      " describes all operations for programs.",
    ),
    ...tags.map((tag) => section(tag, ...all.filter(({ operation }) => operation.tags[0] === tag).map(described))),
    section(
      "Records",
      ...Object.entries(api.components.schemas).map(([name, schema]) =>
        h("details", { id: name }, h("summary", {}, h("code", {}, name)), ...record(schema)),
      ),
    ),
  ];
}

/** @param {{path: string, method: string, operation: Operation}} one */
function described({ path, method, operation }) {
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
  return h(
    "details",
    { id: operation.operationId },
    h("summary", {}, h("code", {}, h("b", {}, method), ` ${path}`), ` ${operation.summary}`),
    operation.security.length ? null : h("p", {}, "Needs no API key."),
    parameters.length ? table("Parameters", ["Parameter", "In", "Type", "Default", "Meaning"], parameters) : null,
    body ? h("p", {}, "Body: ", type(body.schema)) : null,
    body?.example === undefined ? null : scrolling("Example", h("pre", {}, JSON.stringify(body.example, null, 2))),
    table("Answers", ["Status", "Meaning", "Content"], answers),
  );
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

/** @param {string} id */
function open(id) {
  const found = document.getElementById(id);
  if (found instanceof HTMLDetailsElement) found.open = true;
}

try {
  const response = await fetch("/openapi.json");
  main.replaceChildren(...show(await response.json()));
  const id = location.hash.slice(1);
  open(id);
  if (id) document.getElementById(id)?.scrollIntoView();
} catch (error) {
  main.replaceChildren(failure(error));
}
