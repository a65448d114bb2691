/** The columns of the list of runs: what each shows of a run, and of the runs of a group over seeds. */

import { bdi, h } from "./elements.js";
import { date, marked, meanOf, percent } from "./numbers.js";
import { noteText, written } from "./report.js";
import { badge } from "./states.js";
import { TABLES } from "./tables.js";

/** @import { LiveText } from "./elements.js" */
/** @import { Form, RunColumn, RunPage, RunStatus, ValueTotals } from "./records.js" */

/**
 * @typedef {object} Row a run, or the runs of a group over seeds
 * @property {string} name the id of the run or the group
 * @property {boolean} isGroup
 * @property {RunStatus[]} runs
 * @property {string} value of the setting by which the list is grouped
 * @property {string} style of its curve
 */

/**
 * @typedef {object} Column
 * @property {string} id a field of the status of a run or a setting, by which the server can sort
 * @property {LiveText} title
 * @property {boolean} isUsual shown unless the address names other columns
 * @property {(run: RunStatus) => Node | LiveText} cell
 * @property {(runs: RunStatus[]) => Node | LiveText} groupCell
 * @property {(totals: ValueTotals) => LiveText} totalCell of all runs with a value of the setting that groups the list
 */

/** @type {Column[]} */
export const COLUMNS = [
  {
    id: "status",
    title: "Status",
    isUsual: true,
    cell: (run) => h("span", {}, badge(run), run.status === "running" ? ` ${percent(run.progress / 100, 0)}` : null),
    groupCell: (runs) => `${completed(runs).length} of ${runs.length} completed`,
    totalCell: ({ n_completed, n_runs }) => `${n_completed} of ${n_runs} completed`,
  },
  ...TABLES.run_columns.map(columnOf),
];

/**
 * Make a column. A group has the mean of the numbers of its completed runs with their deviation, and else what its first
 * run has.
 * @param {RunColumn} column
 * @returns {Column}
 */
function columnOf({ name, title, form, is_usual }) {
  const numberOf = (/** @type {RunStatus} */ run) => (typeof run[name] === "number" ? run[name] : null);
  const write = (/** @type {number} */ value) => written(value, form);
  /** @param {RunStatus} run */
  const cell = (run) => () => {
    const value = run[name];
    if (value === null) return name === "train_loss" && run.status === "completed" ? "shorter than an epoch" : "–";
    if (typeof value === "string") return form === "time" ? date(value) : value;
    return TABLES.marked_forms.includes(form) ? marked(write(value), value, run.unknown_char_share) : write(value);
  };
  /** @param {RunStatus[]} runs */
  const groupCell = (runs) => {
    const [first] = runs;
    if (!first) return "";
    if (form === "percent") return percent(runs.reduce((sum, run) => sum + run.progress, 0) / runs.length / 100, 0);
    return typeof first[name] === "string" ? cell(first) : () => meanOf(completed(runs).map(numberOf), write);
  };
  /** @param {ValueTotals} totals */
  const totalCell = ({ numbers }) => {
    const found = Object.entries(numbers).find(([field]) => field === name)?.[1];
    return found === undefined ? "" : () => `${write(found.mean)}${found.deviation === null ? "" : ` ± ${write(found.deviation)}`}`;
  };
  const isText = form === "text";
  return {
    id: name,
    title: () => noteText(title),
    isUsual: is_usual,
    cell: name === "owner" ? ownerCell : isText ? (run) => bdi(cell(run)) : form === "time" ? (run) => h("time", {}, cell(run)) : cell,
    groupCell,
    totalCell,
  };
}

/** @param {Pick<RunStatus, "owner">} run */
function ownerCell({ owner }) {
  return owner === null ? "–" : h("bdi", { title: owner }, shortOwner(owner));
}

/**
 * Return the end of the id of a Discord user, as those of the users of a lab begin alike; a name of an API key as it is.
 * @param {string} owner
 */
export function shortOwner(owner) {
  return /^\d{12,}$/.test(owner) ? `…${owner.slice(-6)}` : owner;
}

/**
 * Make a column of a setting, whose values are links.
 * @param {string} name
 * @param {RunPage["settings"]} settings of the runs that are shown
 * @param {(condition: string) => string} withCondition returns the address of the list with a condition
 * @returns {Column}
 */
export function settingColumn(name, settings, withCondition) {
  const textOf = (/** @type {RunStatus} */ run) => settings[run.run_id]?.[name] ?? "";
  const link = (/** @type {string} */ value) =>
    /[,<>=]/.test(value) ? bdi(value) : h("a", { href: withCondition(`${name}=${value}`) }, bdi(value));
  const cell = (/** @type {RunStatus} */ run) => {
    const text = textOf(run);
    /** @type {string[]} */
    const values = text.startsWith("[") ? JSON.parse(text).map(String) : [text].filter((one) => one && one !== "null");
    return h("span", {}, ...(values.length ? values.flatMap((value, at) => [at ? " " : "", link(value)]) : ["–"]));
  };
  const groupCell = (/** @type {RunStatus[]} */ runs) => {
    const [first] = runs;
    return first && runs.every((run) => textOf(run) === textOf(first)) ? cell(first) : "several";
  };
  return { id: name, title: name, isUsual: false, cell, groupCell, totalCell: () => "" };
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
