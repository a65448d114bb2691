/** A form made from the JSON schema of a record: a field that is left empty is not sent, and has its default. */

import { kept } from "./drafts.js";
import { h, withCode } from "./elements.js";
import { capital } from "./numbers.js";

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
 * @property {Record<string, Schema>} [patternProperties] the records of a block of names
 * @property {string} [record] the record that has the fields of a block
 * @property {string[]} [without] fields of that record that the block has not; default: the required ones
 * @property {string[]} [required]
 * @property {Schema} [items]
 * @property {unknown} [default]
 * @property {string} [description]
 * @property {unknown[]} [examples]
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [exclusiveMinimum]
 * @property {number} [exclusiveMaximum]
 * @property {number} [maxProperties]
 * @property {number} [maxLength]
 * @property {{propertyName: string}} [discriminator]
 */
/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Field */
/**
 * A field; one that only names parts of the form, or says that a block is there, holds no value.
 * @typedef {{field: Field, schemas: Schema[], problem: HTMLElement, usual: unknown, isValue: boolean}} Leaf
 */
/** @typedef {Record<string, unknown>} Values */
/** @typedef {{path: string, message: string}} Problem */

/** Larger limits are not worth reading. */
const MAX_SHOWN = 1e6;
/** A text that may be longer has a field of several lines. */
const MAX_LINE = 1000;
const GIVEN = [true];
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

export class SchemaForm {
  /** @type {Map<string, Leaf>} the fields by their path */
  #leaves = new Map();
  /** @type {Map<string, boolean>} the parts of lists and of blocks of names by their path; true in a list */
  #parts = new Map();
  #schemas;
  #draft;
  #suggestions;
  #values;
  #without;

  /**
   * @param {Record<string, Schema>} schemas all records by the end of their `$ref`
   * @param {Values} values what the fields begin with
   * @param {string} draft name under which the fields are kept
   * @param {Record<string, string>} suggestions ids of data lists by the name of the field
   * @param {string[]} without paths of fields that the form has not
   */
  constructor(schemas, values, draft, suggestions, without) {
    this.#schemas = schemas;
    this.#values = values;
    this.#draft = draft;
    this.#suggestions = suggestions;
    this.#without = without;
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
    const [part] = Object.values(first?.patternProperties ?? {}).concat(first?.items ?? []).flatMap((one) => this.#alternatives(one));
    if (tag !== null) return this.#union(path, schema, schemas, tag);
    if (part?.properties || part?.record) return this.#list(path, schema, this.#fieldsOf(part), !first?.items);
    if (first?.record) return folded(path, schema, this.#properties(path, this.#fieldsOf(first)), isRequired);
    if (schemas.length !== 1 || !first?.properties) return this.#leaf(path, schema, schemas, isRequired);
    const says = schema.anyOf && Object.values(first.properties).some((one) => (one.default ?? null) !== null);
    const given = says ? [this.#leaf(path, { enum: GIVEN, default: false, description: "With the values beside it." }, [{ enum: GIVEN }], false, false)] : [];
    const chosen = first.properties["content"] ? [this.#chooser(path, "File", false, () => path)] : [];
    return frame(path, schema, [...given, ...chosen, ...this.#properties(path, first)]);
  }

  /**
   * Return what the fields hold: records in records, without what is empty.
   * @returns {Values}
   */
  read() {
    /** @type {Values} */
    const found = {};
    for (const path of this.#parts.keys()) blockAt(found, path.split("."));
    for (const [path, { field, schemas, isValue }] of this.#leaves) {
      if (field.value.trim() === "") continue;
      const names = path.split(".");
      if (isValue) blockAt(found, names.slice(0, -1))[names.at(-1) ?? ""] = parsed(field.value.trim(), schemas);
      else if (field instanceof HTMLSelectElement) blockAt(found, names);
    }
    const lists = new Set([...this.#parts].filter(([, isList]) => isList).map(([path]) => path.split(".").slice(0, -1)));
    for (const names of lists) blockAt(found, names.slice(0, -1))[names.at(-1) ?? ""] = Object.values(blockAt(found, names));
    return found;
  }

  /**
   * Show what the fields that are left empty will be.
   * @param {Values} values
   */
  resolve(values) {
    for (const [path, { field, usual, isValue }] of this.#leaves) {
      const value = valueAt(values, path) ?? usual;
      const isShown = isValue && (typeof value !== "object" || Array.isArray(value));
      if (!isShown) continue;
      const text = value === undefined ? "" : written(value);
      if (!(field instanceof HTMLSelectElement)) field.placeholder = text;
      else if (field.options[0]?.value === "") field.options[0].text = text ? `default: ${named(value)}` : "default";
    }
  }

  /**
   * Show problems at their fields; gives those that belong to no field.
   * @param {Problem[]} problems
   */
  show(problems) {
    this.clear();
    return problems.filter(({ path, message }) => {
      const leaf = this.#nearest(path);
      leaf?.field.setAttribute("aria-invalid", "true");
      leaf?.problem.append(withCode(() => message));
      return !leaf;
    });
  }

  /**
   * Take the problems of a field away, or those of all.
   * @param {EventTarget | null} [only]
   */
  clear(only) {
    for (const { field, problem } of this.#leaves.values()) {
      if (only && field !== only) continue;
      field.removeAttribute("aria-invalid");
      problem.replaceChildren();
    }
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
   * Return a record, or the fields that a block has of one.
   * @param {Schema} schema
   * @returns {Schema}
   */
  #fieldsOf(schema) {
    if (!schema.record) return schema;
    const { properties = {}, required = [] } = this.#schemas[schema.record] ?? {};
    const without = schema.without ?? required;
    const names = [...required, ...Object.keys(properties).filter((name) => !required.includes(name))]; // what all need is first
    return { properties: Object.fromEntries(names.filter((name) => !without.includes(name)).map((name) => [name, properties[name] ?? {}])) };
  }

  /**
   * Make a part for each record of a list or of a block of names, and what adds one: files, where they have a content.
   * @param {string} path
   * @param {Schema} schema
   * @param {Schema} record
   * @param {boolean} isNamed
   */
  #list(path, schema, record, isNamed) {
    const place = h("div", { class: "wide" });
    const start = Object.keys(/** @type {object} */ (valueAt(this.#values, path) ?? {}));
    const names = kept(h("input", { type: "hidden", value: start.join() }), `${this.#draft}:${path}:names`);
    const known = () => names.value.split(",").filter(Boolean);
    const keep = (/** @type {string[]} */ all) => {
      names.value = all.join();
      names.dispatchEvent(new Event("input"));
      place.dispatchEvent(new Event("change", { bubbles: true }));
    };
    const show = (/** @type {string} */ name) => {
      const at = `${path}.${name}`;
      const remove = h("button", { type: "button" }, `Remove ${name}`);
      const part = frame(at, {}, [...this.#properties(at, record), remove]);
      remove.onclick = () => {
        part.remove();
        this.#forget(at);
        keep(known().filter((one) => one !== name));
      };
      this.#parts.set(at, !isNamed);
      place.append(part);
    };
    const add = (/** @type {string} */ name) => {
      if (!name || known().includes(name)) return;
      show(name);
      keep([...known(), name]);
    };
    known().forEach(show);
    const noun = path.split(".").pop() ?? "";
    if (!isNamed) {
      const next = () => String(Math.max(-1, ...known().map(Number)) + 1);
      const addNext = () => {
        const at = next();
        add(at);
        return `${path}.${at}`;
      };
      const isFile = record.properties?.["content"] !== undefined;
      const chosen = isFile ? [this.#chooser(path, "Files", true, addNext)] : [];
      const button = h("button", { type: "button", onclick: () => add(next()) }, isFile ? "Paste a text" : "Add");
      return frame(path, schema, [place, ...chosen, button]);
    }
    const made = this.#leaf(path, { description: "Its name in the tables." }, [], false, false);
    const { field } = /** @type {Leaf} */ (this.#leaves.get(path));
    const addNamed = () => {
      add(field.value.trim());
      field.value = "";
      field.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key !== "Enter") return;
      event.preventDefault(); // it would send the form
      addNamed();
    });
    return frame(path, schema, [place, made, h("button", { type: "button", onclick: addNamed }, `Add to ${noun}`)]);
  }

  /**
   * Make what chooses files of this machine, whose names and contents are put into fields.
   * @param {string} path
   * @param {string} label
   * @param {boolean} multiple
   * @param {() => string} next the path of the record of the next file
   */
  #chooser(path, label, multiple, next) {
    const upload = h("input", { id: `field-${path.split(".").pop()}`, type: "file", multiple });
    upload.onchange = async () => {
      for (const file of upload.files ?? []) {
        const at = next();
        const text = utf8(await file.arrayBuffer());
        for (const [name, value] of Object.entries({ name: file.name, content: text ?? "" })) {
          const leaf = this.#leaves.get(`${at}.${name}`);
          if (leaf) leaf.field.value = value;
        }
        this.show(text === null ? [{ path: `${at}.content`, message: `'${file.name}' is not UTF-8. Save the text as UTF-8.` }] : []);
      }
      upload.value = "";
    };
    return h("div", { class: "field" }, h("label", { for: upload.id }, label), upload);
  }

  /** @param {string} path of what has gone @param {string} but what stays of it */
  #forget(path, but = "") {
    for (const found of [this.#parts, this.#leaves])
      for (const name of found.keys()) if (`${name}.`.startsWith(`${path}.`) && name !== but) found.delete(name);
  }

  /**
   * @param {string} path
   * @param {Schema} record
   * @param {string} without a property that has its field already
   */
  #properties(path, record, without = "") {
    return Object.entries(record.properties ?? {})
      .filter(([name, schema]) => name !== without && schema.const === undefined && schema.maxProperties !== 0)
      .filter(([name]) => !this.#without.includes(`${path}.${name}`))
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
      this.#forget(path, `${path}.${tag}`);
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
   * @param {boolean} isValue
   */
  #leaf(path, schema, schemas, isRequired, isValue = true) {
    const id = `field-${path.replaceAll(".", "-")}`;
    const choices = schemas.flatMap((one) => (one.type === "boolean" ? [true, false] : (one.enum ?? [])));
    const isChoice = choices.length > 0 && schemas.every((one) => one.type === "boolean" || one.enum);
    const described = { id, "aria-describedby": `${id}-help ${id}-problem`, required: isRequired };
    const start = valueAt(this.#values, path);
    const shown = start === undefined || (start === null && (schema.default ?? null) === null) ? "" : written(start);
    const usual = schema.default === undefined || schema.default === null ? "" : written(schema.default);
    const options = choices.map((one) => h("option", { value: written(one), selected: shown === written(one) }, named(one)));
    if (!isRequired) options.unshift(h("option", { value: "" }, usual ? `default: ${named(schema.default)}` : "default"));
    const list = this.#suggestions[path.split(".").pop() ?? ""];
    const isRecord = schemas.some(({ type }) => type === "object");
    const example = isRecord && schema.examples ? `such as ${JSON.stringify(schema.examples[0])}` : usual;
    const typed = { ...described, placeholder: example, autocomplete: "off", spellcheck: false, ...(list ? { list } : {}) };
    const made = isChoice
      ? h("select", described, ...options)
      : isRecord || schemas.some(({ maxLength = 0 }) => maxLength > MAX_LINE)
        ? h("textarea", { ...typed, rows: 4 }, shown)
        : h("input", { ...typed, type: "text", value: shown });
    const problem = h("p", { id: `${id}-problem`, class: "problem" });
    const help = [schema.description ?? "", ...schemas.map(limits)].filter(Boolean).join(" ");
    const field = kept(made, `${this.#draft}:${path}`);
    this.#leaves.set(path, { field, schemas, problem, usual: schema.default ?? undefined, isValue });
    return h(
      "div",
      { class: "field" },
      h("label", { for: id }, path.split(".").pop() ?? path),
      made,
      h("small", { id: `${id}-help` }, withCode(() => help)),
      problem,
    );
  }
}

/**
 * Return the text of a file, null if it is not UTF-8.
 * @param {ArrayBuffer} content
 */
function utf8(content) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(content);
  } catch {
    return null;
  }
}

/**
 * @param {string} path
 * @param {Schema} schema
 * @param {HTMLElement[]} fields
 */
function frame(path, { description = "" }, fields) {
  return h(
    "fieldset",
    {},
    h("legend", {}, path.split(".").pop() ?? path),
    description ? h("small", {}, withCode(() => description)) : null,
    h("div", { class: "fields" }, ...fields),
  );
}

/**
 * @param {string} path
 * @param {Schema} schema
 * @param {HTMLElement[]} fields
 * @param {boolean} open
 */
function folded(path, schema, fields, open) {
  return h("details", { class: "wide", open }, h("summary", {}, path.split(".").pop() ?? path), frame(path, schema, fields));
}

/**
 * Return the record at a path, which is made where there is none.
 * @param {Values} values
 * @param {string[]} names
 */
function blockAt(values, names) {
  let block = values;
  for (const name of names) block = /** @type {Values} */ (block[name] ??= {});
  return block;
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
  const words = [low, high].filter(Boolean).join(" ") || (schema.type === "array" ? "separated by commas" : schema.type === "object" ? "as JSON" : "");
  return words && `${capital(words)}.`;
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
