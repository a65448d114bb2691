/** Records as people read them: the values of fields, and a table with a column for each field. */

import { addressOf } from "./connection.js";
import { bdi, h, section, table } from "./elements.js";
import { date, decimal, duration, loss, perChar, size } from "./numbers.js";
import { badge } from "./states.js";
import { TABLES } from "./tables.js";
import { unit } from "./units.js";

/** @import { Child } from "./elements.js" */
/** @import { RunState } from "./records.js" */

const MAX_ROWS = 1000;
const MAX_VALUES = 10;
/** Fields whose numbers have the unit of the page: losses in nats per token, and bits per character. */
const LOSS_FIELD = /(^|_)(loss|bits_per_char)$/;
const RUN_FIELD = /(^|_)run_ids?$|^runs$|^development_of$/;

/**
 * @template {object} Row
 * @param {string} caption
 * @param {Row[]} rows
 * @param {(Extract<keyof Row, string>)[]} fields
 */
export function recordTable(caption, rows, fields) {
  const shown = rows.slice(0, MAX_ROWS);
  const made = table(caption, fields.map((field) => () => titleOf(field)), shown.map((row) => fields.map((field) => valueOf(field, row[field]))));
  if (rows.length <= MAX_ROWS) return made;
  const note = `The first ${MAX_ROWS.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows; the files have all.`;
  return h("div", {}, h("p", { class: "quiet" }, note), made);
}

/**
 * Return the title of a field, with the unit of the page where its numbers have one.
 * @param {string} field
 */
export function titleOf(field) {
  const name = field.replace(/^is_|_(at|seconds)$|_?bits_per_char$/g, "").replaceAll("_", " ");
  if (!LOSS_FIELD.test(field)) return name;
  return [name, `${unit()} per ${field.endsWith("char") ? "character" : "token"}`].filter(Boolean).join(", ");
}

/**
 * Write the value of a field by its type and its name: states, times, sizes, and links to runs and jobs.
 * @param {string} field
 * @param {unknown} value
 * @param {number} most values of a list
 * @returns {Child}
 */
export function valueOf(field, value, most = MAX_VALUES) {
  if (Array.isArray(value)) {
    const shown = value.slice(0, most).flatMap((one, index) => [index ? ", " : "", valueOf(field, one)]);
    const more = value.length > most ? ` and ${value.length - most} more` : "";
    return value.length ? h("span", {}, ...shown, more) : "–";
  }
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") {
    if (LOSS_FIELD.test(field)) return () => (field.endsWith("char") ? perChar(value) : loss(value));
    if (field.endsWith("_seconds")) return duration(value);
    return field.endsWith("bytes") ? size(value) : decimal(value, Number.isInteger(value) ? 0 : 4);
  }
  const text = String(value);
  if (field === "status") return badge({ status: /** @type {RunState} */ (text) });
  if (field.endsWith("_at")) return date(text);
  if (field === "url") return h("a", { href: addressOf(text), download: "" }, "Download");
  const kind = RUN_FIELD.test(field) ? "runs" : TABLES.jobs.find(({ word }) => field === `${word}_id`)?.kind;
  return kind === undefined ? bdi(text) : h("a", { href: `#/${kind}/${text.split("@")[0]}` }, h("code", {}, text));
}

/**
 * Make a part of the page with a heading, whose content is made when it is opened.
 * @param {string} title
 * @param {() => Node} content
 */
export function foldedSection(title, content) {
  const made = section(title);
  made.append(folded(/** @type {Node} */ (made.firstChild), content));
  return made;
}

/**
 * Make details whose content is made when they are opened.
 * @param {Node | string} title
 * @param {() => Node} content
 */
export function folded(title, content) {
  const details = h(
    "details",
    { ontoggle: () => details.open && details.children.length === 1 && details.append(content()) },
    h("summary", {}, title),
  );
  return details;
}
