/** Records as a table with a column for each field. */

import { h, table } from "./elements.js";
import { decimal } from "./numbers.js";

const MAX_ROWS = 1000;

/**
 * @template {object} Row
 * @param {string} caption
 * @param {Row[]} rows
 * @param {(Extract<keyof Row, string>)[]} fields
 * @param {(row: Row) => Node} [first] makes the first cell of a row in place of its first field
 */
export function recordTable(caption, rows, fields, first) {
  const made = table(
    caption,
    fields.map((field) => field.replaceAll("_", " ")),
    rows
      .slice(0, MAX_ROWS)
      .map((row) => fields.map((field, column) => (first && column === 0 ? first(row) : cell(row[field])))),
  );
  if (rows.length <= MAX_ROWS) return made;
  const note = `The first ${MAX_ROWS.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows; the files have all.`;
  return h("div", {}, h("p", { class: "quiet" }, note), made);
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
