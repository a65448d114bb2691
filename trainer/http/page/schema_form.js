/** A form made from the JSON schema of a record: a field that is left empty is not sent, and has its default. */

import { kept } from "./drafts.js";
import { h } from "./elements.js";

/**
 * The parts of JSON Schema that the server's description of its records has.
 * @typedef {object} Schema
 * @property {string | string[]} [type]
 * @property {unknown[]} [enum]
 * @property {unknown} [const]
 * @property {Schema[]} [anyOf]
 * @property {Schema[]} [oneOf]
 * @property {string} [$ref]
 * @property {Record<string, Schema>} [properties]
 * @property {string[]} [required]
 * @property {Schema} [items]
 * @property {unknown} [default]
 * @property {string} [description]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [exclusiveMaximum]
 * @property {number} [maxProperties]
 * @property {{propertyName: string}} [discriminator]
 */
/** @typedef {HTMLInputElement | HTMLSelectElement} Field */
/** @typedef {{field: Field, schemas: Schema[], problem: HTMLElement}} Leaf */
/** @typedef {Record<string, unknown>} Values */
/** @typedef {{path: string, message: string}} Problem */

/** Larger limits are not worth reading. */
const MAX_SHOWN = 1e6;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

export class SchemaForm {
  /** @type {Map<string, Leaf>} the fields by their path */
  #leaves = new Map();
  #schemas;
  #draft;
  #suggestions;
  #values;

  /**
   * @param {Record<string, Schema>} schemas all records by the end of their `$ref`
   * @param {Values} values what the fields begin with
   * @param {string} draft name under which the fields are kept
   * @param {Record<string, string>} suggestions ids of data lists by the path of the field
   */
  constructor(schemas, values, draft, suggestions) {
    this.#schemas = schemas;
    this.#values = values;
    this.#draft = draft;
    this.#suggestions = suggestions;
  }

  /**
   * Make the fields of a property, with a frame around those of a record.
   * @param {string} path
   * @param {Schema} schema
   * @param {boolean} isRequired
   * @returns {HTMLElement}
   */
  fields(path, schema, isRequired = false) {
    const schemas = this.#alternatives(schema);
    const [first] = schemas;
    const tag = this.#discriminator(schema);
    if (tag !== null) return this.#union(path, schema, schemas, tag);
    if (schemas.length === 1 && first?.properties) return frame(path, schema, this.#properties(path, first));
    return this.#leaf(path, schema, schemas, isRequired);
  }

  /**
   * Return what the fields hold: records in records, without what is empty.
   * @returns {Values}
   */
  read() {
    /** @type {Values} */
    const found = {};
    for (const [path, { field, schemas }] of this.#leaves) {
      if (field.value.trim() === "") continue;
      const names = path.split(".");
      const last = names.pop() ?? "";
      /** @type {Values} */
      let block = found;
      for (const name of names) block = /** @type {Values} */ (block[name] ??= {});
      block[last] = parsed(field.value.trim(), schemas);
    }
    return found;
  }

  /**
   * Show problems at their fields; gives those that belong to no field.
   * @param {Problem[]} problems
   */
  show(problems) {
    for (const { field, problem } of this.#leaves.values()) {
      field.removeAttribute("aria-invalid");
      problem.replaceChildren();
    }
    return problems.filter(({ path, message }) => {
      const leaf = this.#nearest(path);
      leaf?.field.setAttribute("aria-invalid", "true");
      leaf?.problem.append(h("span", {}, message));
      return !leaf;
    });
  }

  /** Give the focus to the first field with a problem, in a group that opens. */
  focus() {
    const wrong = [...this.#leaves.values()].filter(({ field }) => field.ariaInvalid === "true").map(({ field }) => field);
    const [first] = wrong.sort((one, two) => (one.compareDocumentPosition(two) & Node.DOCUMENT_POSITION_PRECEDING ? 1 : -1));
    for (const field of wrong) field.closest("details")?.setAttribute("open", "");
    first?.focus();
  }

  /** @param {string} path */
  #nearest(path) {
    for (let names = path.split("."); names.length; names = names.slice(0, -1)) {
      const leaf = this.#leaves.get(names.join("."));
      if (leaf) return leaf;
    }
    return [...this.#leaves].find(([name]) => name.startsWith(`${path}.`))?.[1];
  }

  /**
   * Return the schemas of the values that a field takes, without null.
   * @param {Schema} schema
   * @returns {Schema[]}
   */
  #alternatives(schema) {
    if (schema.$ref) return this.#alternatives(this.#schemas[schema.$ref.split("/").pop() ?? ""] ?? {});
    const inner = schema.anyOf ?? schema.oneOf;
    if (inner && !schema.properties) return inner.flatMap((one) => this.#alternatives(one));
    return schema.type === "null" ? [] : [schema];
  }

  /**
   * @param {Schema} schema
   * @returns {string | null}
   */
  #discriminator(schema) {
    return schema.discriminator?.propertyName ?? (schema.anyOf ?? []).map((one) => this.#discriminator(one)).find(Boolean) ?? null;
  }

  /**
   * @param {string} path
   * @param {Schema} record
   * @param {string} without a property that has its field already
   */
  #properties(path, record, without = "") {
    return Object.entries(record.properties ?? {})
      .filter(([name, schema]) => name !== without && schema.const === undefined && schema.maxProperties !== 0)
      .map(([name, schema]) => this.fields(`${path}.${name}`, schema, record.required?.includes(name)));
  }

  /**
   * Make the choice between records by one of their properties, and the fields of the chosen one.
   * @param {string} path
   * @param {Schema} schema
   * @param {Schema[]} records
   * @param {string} tag
   */
  #union(path, schema, records, tag) {
    const names = records.map((record) => record.properties?.[tag]?.const);
    const place = h("div");
    const choice = this.#leaf(`${path}.${tag}`, { enum: names, default: null, description: "" }, [{ enum: names }], false);
    const field = this.#leaves.get(`${path}.${tag}`)?.field;
    const show = () => {
      for (const name of this.#leaves.keys())
        if (name.startsWith(`${path}.`) && name !== `${path}.${tag}`) this.#leaves.delete(name);
      const record = records.find((one) => one.properties?.[tag]?.const === field?.value);
      place.replaceChildren(...(record ? this.#properties(path, record, tag) : []));
    };
    field?.addEventListener("change", show);
    show();
    return frame(path, schema, [choice, place]);
  }

  /**
   * @param {string} path
   * @param {Schema} schema
   * @param {Schema[]} schemas
   * @param {boolean} isRequired
   */
  #leaf(path, schema, schemas, isRequired) {
    const id = `field-${path.replaceAll(".", "-")}`;
    const choices = schemas.flatMap((one) => (one.type === "boolean" ? [true, false] : (one.enum ?? [])));
    const isChoice = choices.length > 0 && schemas.every((one) => one.type === "boolean" || one.enum);
    const described = { id, "aria-describedby": `${id}-help ${id}-problem`, required: isRequired };
    const start = valueAt(this.#values, path);
    const shown = start === undefined || (start === null && (schema.default ?? null) === null) ? "" : written(start);
    const usual = schema.default === undefined || schema.default === null ? "" : written(schema.default);
    const options = choices.map((one) => h("option", { value: written(one), selected: shown === written(one) }, named(one)));
    if (!isRequired) options.unshift(h("option", { value: "" }, usual ? `default: ${named(schema.default)}` : "default"));
    const list = this.#suggestions[path];
    const made = isChoice
      ? h("select", described, ...options)
      : h("input", {
          ...described,
          type: "text",
          value: shown,
          placeholder: usual,
          autocomplete: "off",
          spellcheck: false,
          ...(list ? { list } : {}),
        });
    const problem = h("p", { id: `${id}-problem`, class: "problem" });
    const help = [schema.description ?? "", ...schemas.map(limits)].filter(Boolean).join(" ");
    this.#leaves.set(path, { field: kept(made, `${this.#draft}:${path}`), schemas, problem });
    return h(
      "div",
      { class: "field" },
      h("label", { for: id }, path.split(".").pop() ?? path),
      made,
      h("small", { id: `${id}-help` }, help),
      problem,
    );
  }
}

/**
 * @param {string} path
 * @param {Schema} schema
 * @param {HTMLElement[]} fields
 */
function frame(path, schema, fields) {
  return h(
    "fieldset",
    {},
    h("legend", {}, path.split(".").pop() ?? path),
    schema.description ? h("small", {}, schema.description) : null,
    h("div", { class: "fields" }, ...fields),
  );
}

/**
 * Read a value as the first kind that it can be: null, a number, a list, a record, or else text.
 * @param {string} text
 * @param {Schema[]} schemas
 * @returns {unknown}
 */
function parsed(text, schemas) {
  const types = schemas.flatMap((one) => one.type ?? (one.properties ? "object" : typeof one.enum?.[0]));
  const isNumber = types.includes("integer") || types.includes("number");
  if (types.includes("boolean") && (text === "true" || text === "false")) return text === "true";
  if (text === "null" && !types.includes("string")) return null;
  if (isNumber && NUMBER.test(text)) return Number(text);
  if ((types.includes("array") && text.startsWith("[")) || (types.includes("object") && text.startsWith("{"))) {
    try {
      return JSON.parse(text);
    } catch {
      return text; // the server says what is wrong
    }
  }
  if (!types.includes("array") || (types.length > 1 && !text.includes(","))) return text;
  const items = schemas.flatMap((one) => one.items ?? []);
  return text.split(",").map((one) => parsed(one.trim(), items));
}

/**
 * Write a value as `parsed` reads it.
 * @param {unknown} value
 * @returns {string}
 */
function written(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value) && value.every((one) => typeof one !== "object")) return value.join(", ");
  return JSON.stringify(value);
}

/** @param {unknown} value */
function named(value) {
  return value === true ? "yes" : value === false ? "no" : written(value);
}

/** @param {Schema} schema */
function limits(schema) {
  const { minimum, exclusiveMinimum, maximum = Infinity, exclusiveMaximum = Infinity } = schema;
  const low = minimum !== undefined ? `from ${minimum}` : exclusiveMinimum !== undefined ? `above ${exclusiveMinimum}` : "";
  const high = maximum < MAX_SHOWN ? `to ${maximum}` : exclusiveMaximum < MAX_SHOWN ? `below ${exclusiveMaximum}` : "";
  const words = [low, high].filter(Boolean).join(" ");
  return words ? `${words[0]?.toUpperCase()}${words.slice(1)}.` : "";
}

/**
 * @param {Values} values
 * @param {string} path
 * @returns {unknown}
 */
function valueAt(values, path) {
  /** @type {unknown} */
  let value = values;
  for (const name of path.split(".")) value = /** @type {Values | null | undefined} */ (value)?.[name];
  return value;
}
