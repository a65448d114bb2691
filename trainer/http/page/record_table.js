/** Records as a table with a column for each field. */

import { h, table } from "./elements.js";
import { decimal, loss, perChar, percent, perplexity, surprisal } from "./numbers.js";
import { unit } from "./units.js";

/** @import { Child, LiveText } from "./elements.js" */

const MAX_ROWS = 1000;
/**
 * How the numbers of fields are written; others have 4 decimals, and none if they are whole.
 * @type {[write: (value: number) => string, fields: string[]][]}
 */
const WRITTEN = [
  [loss, ["cross_entropy", "native_cross_entropy", "excess_cross_entropy", "cross_entropy_mean", "cross_entropy_sd"]],
  [loss, ["excess_mean", "excess_sd", "excess_a_on_b", "excess_b_on_a", "asymmetry", "difference"]],
  [loss, ["interval_low", "interval_high", "height", "best_val_loss", "test_loss", "auc"]],
  [perChar, ["bits_per_char"]],
  [surprisal, ["surprisal", "surprisal_low", "surprisal_high"]],
  [perplexity, ["test_perplexity"]],
  [percent, ["accuracy", "low", "high", "chance", "mean_over_paradigms", "fraction_scored"]],
];

/**
 * @template {object} Row
 * @param {LiveText} caption
 * @param {Row[]} rows
 * @param {(Extract<keyof Row, string>)[]} fields
 * @param {(row: Row) => Node} [first] makes the first cell of a row in place of its first field
 */
export function recordTable(caption, rows, fields, first) {
  const made = table(
    caption,
    fields.map((field) => (field === "bits_per_char" ? () => `${unit()} per character` : field.replaceAll("_", " "))),
    rows
      .slice(0, MAX_ROWS)
      .map((row) => fields.map((field, column) => (first && column === 0 ? first(row) : cell(field, row[field])))),
  );
  if (rows.length <= MAX_ROWS) return made;
  const note = `The first ${MAX_ROWS.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows; the files have all.`;
  return h("div", {}, h("p", { class: "quiet" }, note), made);
}

/**
 * @param {string} field
 * @param {unknown} value
 * @returns {Child}
 */
function cell(field, value) {
  if (value === null) return "–";
  const [write] = WRITTEN.find(([, fields]) => fields.includes(field)) ?? [];
  if (typeof value === "number") return write ? () => write(value) : decimal(value, Number.isInteger(value) ? 0 : 4);
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
