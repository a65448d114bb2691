/** The columns of the list of runs: what each shows of a run, and of the runs of a group over seeds. */

import { bdi, h } from "./elements.js";
import { capital, date, decimal, loss, meanOf, perChar, percent } from "./numbers.js";
import { badge } from "./states.js";
import { unit } from "./units.js";

/** @import { LiveText } from "./elements.js" */
/** @import { RunStatus } from "./records.js" */

/**
 * @typedef {object} Row a run, or the runs of a group over seeds
 * @property {string} name the id of the run or the group
 * @property {boolean} isGroup
 * @property {RunStatus[]} runs
 */

/**
 * @typedef {object} Column
 * @property {string} id a field of the status of a run, by which the server can sort
 * @property {LiveText} title
 * @property {boolean} isUsual shown unless the address names other columns
 * @property {number} width in rem
 * @property {(run: RunStatus) => Node | LiveText} cell
 * @property {(runs: RunStatus[]) => Node | LiveText} groupCell
 */

/** @type {Column[]} */
export const COLUMNS = [
  {
    id: "status",
    title: "Status",
    isUsual: true,
    width: 9.5,
    cell: badge,
    groupCell: (runs) => `${completed(runs).length} of ${runs.length} completed`,
  },
  column("model_family", "Family", 6.5, (run) => run.model_family),
  {
    id: "progress",
    title: "Progress",
    isUsual: true,
    width: 6.5,
    cell: (run) => percent(run.progress / 100, 0),
    groupCell: (runs) => percent(runs.reduce((sum, run) => sum + run.progress, 0) / runs.length / 100, 0),
  },
  number("train_loss", "Train loss", (run) => run.train_loss),
  number("val_loss", "Validation loss", (run) => run.val_loss),
  number("best_val_loss", "Best validation loss", (run) => run.best_val_loss, { isUsual: false }),
  number("best_val_bits_per_char", () => `Best validation ${unit()} per character`, (run) => run.best_val_bits_per_char, {
    isUsual: false,
    write: perChar,
  }),
  number("test_loss", "Test loss", (run) => run.test_loss),
  number("bits_per_char", () => `${capital(unit())} per character`, (run) => run.bits_per_char, {
    write: perChar,
  }),
  number("params", "Parameters", (run) => run.params, { isUsual: false, write: (value) => decimal(value, 0) }),
  column("owner", "Owner", 7.5, (run) => bdi(run.owner ?? "–")),
  column("created_at", "Created", 11.5, (run) => date(run.created_at)),
];

/**
 * Make a column that shows the same for all runs of a group.
 * @param {string} id
 * @param {string} title
 * @param {number} width
 * @param {(run: RunStatus) => Node | string} cell
 * @returns {Column}
 */
function column(id, title, width, cell) {
  return { id, title, isUsual: true, width, cell, groupCell: ([first]) => (first ? cell(first) : "") };
}

/**
 * Make a column of numbers; a group has the mean of its completed runs with their deviation.
 * @param {string} id
 * @param {LiveText} title
 * @param {(run: RunStatus) => number | null} value
 * @param {{isUsual?: boolean, write?: (value: number | null, unknownShare?: number | null) => string}} options
 * @returns {Column}
 */
function number(id, title, value, { isUsual = true, write = loss } = {}) {
  return {
    id,
    title,
    isUsual,
    width: 9,
    cell: (run) => () => write(value(run), run.unknown_char_share),
    groupCell: (runs) => () => meanOf(completed(runs).map(value), write),
  };
}

/** @param {RunStatus[]} runs */
function completed(runs) {
  return runs.filter((run) => run.status === "completed");
}

/**
 * Make the link to a run; its id stands below a label.
 * @param {RunStatus} run
 */
export function runLink(run) {
  const name = run.label ?? run.run_id;
  const link = h("a", { href: `#/runs/${run.run_id}`, title: name }, bdi(name));
  return h("span", {}, link, run.label === null ? null : h("small", {}, run.run_id));
}
