/** Records as people read them: the values of fields, and a table with a column for each field. */

import { addressOf } from "./connection.js";
import { bdi, h, section, table } from "./elements.js";
import { date, decimal, duration, loss, perChar, percent, perplexity, size, surprisal } from "./numbers.js";
import { badge } from "./states.js";
import { TABLES } from "./tables.js";
import { unit } from "./units.js";

/** @import { Child, LiveText } from "./elements.js" */
/** @import { RunState } from "./records.js" */

const MAX_ROWS = 1000;
const MAX_VALUES = 10;
const RUN_FIELD = /(^|_)run_ids?$|^runs$|^development_of$/;
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
      .map((row) => fields.map((field, column) => (first && column === 0 ? first(row) : valueOf(field, row[field])))),
  );
  if (rows.length <= MAX_ROWS) return made;
  const note = `The first ${MAX_ROWS.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows; the files have all.`;
  return h("div", {}, h("p", { class: "quiet" }, note), made);
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
    const [write] = WRITTEN.find(([, fields]) => fields.includes(field)) ?? [];
    if (write) return () => write(value);
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
