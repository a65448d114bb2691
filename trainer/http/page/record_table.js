/** Records as a table with a column for each field. */

import { h, table } from "./elements.js";
import { decimal } from "./numbers.js";

/**
 * @template {object} Row
 * @param {string} caption
 * @param {Row[]} rows
 * @param {(Extract<keyof Row, string>)[]} fields
 * @param {(row: Row) => Node} [first] makes the first cell of a row in place of its first field
 */
export function recordTable(caption, rows, fields, first) {
  return table(
    caption,
    fields.map((field) => field.replaceAll("_", " ")),
    rows.map((row) => fields.map((field, column) => (first && column === 0 ? first(row) : cell(row[field])))),
  );
}

/** @param {unknown} value */
function cell(value) {
  if (value === null) return "–";
  if (typeof value === "number") return decimal(value, Number.isInteger(value) ? 0 : 4);
  if (Array.isArray(value)) return value.join(" ");
  return h("bdi", {}, String(value));
}

/**
 * Make details whose content is made when they are opened.
 * @param {string} title
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
