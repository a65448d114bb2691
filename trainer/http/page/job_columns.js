/** The columns of a kind of jobs, which its list and the view of a job share. */

import { h } from "./elements.js";
import { duration, percent } from "./numbers.js";
import { valueOf } from "./record_table.js";

/** @import { Child } from "./elements.js" */
/** @import { JobStatus, JobTable, RunState, RunStatus } from "./records.js" */
/** @typedef {{title: string, fields: string[], write: (job: JobStatus, most?: number) => Child}} Column */

const DONE = "done";

/**
 * Return the columns of a kind; the number that is done and the total after it are one column.
 * @param {JobTable} kind
 * @returns {Column[]}
 */
export function columnsOf({ columns }) {
  return columns.flatMap(([title, field], index) => {
    if (columns[index - 1]?.[0] === DONE) return [];
    const [unit, total] = columns[index + 1] ?? [];
    if (title === DONE && unit && total) {
      const write = (/** @type {JobStatus} */ job) => progress(Number(fieldsOf(job)[field]), Number(fieldsOf(job)[total]), unit);
      return [{ title: "progress", fields: [field, total], write }];
    }
    return [{ title, fields: [field], write: (job, most) => valueOf(field, fieldsOf(job)[field], most) }];
  });
}

/**
 * Return the fields of a job, which its kind has.
 * @param {JobStatus} job
 * @returns {Record<string, unknown>}
 */
export function fieldsOf(job) {
  return { ...job };
}

/**
 * Return the ids of the trainings of a job that run now.
 * @param {Record<string, unknown>} fields of an experiment, which has cells, a study, which has trials, or another job
 * @returns {string[]}
 */
export function runningRuns({ cells, trials }) {
  const parts = /** @type {{kind?: string, status: RunState, run_id: string | null}[]} */ (cells ?? trials ?? []);
  const running = parts.filter(({ kind = "train", status }) => kind === "train" && status === "running");
  return running.flatMap(({ run_id }) => run_id ?? []);
}

/**
 * Write how far a training has come.
 * @param {Pick<RunStatus, "progress" | "epoch" | "total_epochs" | "eta_seconds">} run
 */
export function trainingText({ progress: percentage, epoch, total_epochs, eta_seconds }) {
  const left = eta_seconds === null ? "" : `, ${duration(eta_seconds)} left`;
  return `${percent(percentage / 100, 0)}, epoch ${epoch} of ${total_epochs}${left}`;
}

/** @param {number} done @param {number} total */
export function progressBar(done, total) {
  return h("progress", { max: Math.max(1, total), value: done, "aria-label": "Progress" });
}

/** @param {number} done @param {number} total @param {string} unit */
function progress(done, total, unit) {
  return h("span", {}, progressBar(done, total), ` ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}`);
}
