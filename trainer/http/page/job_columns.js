/** The columns of a kind of jobs, which its list and the view of a job share. */

import { h } from "./elements.js";
import { valueOf } from "./record_table.js";

/** @import { Child } from "./elements.js" */
/** @import { JobStatus, JobTable } from "./records.js" */
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

/** @param {number} done @param {number} total @param {string} unit */
function progress(done, total, unit) {
  const bar = h("progress", { max: Math.max(1, total), value: done, "aria-label": "Progress" });
  return h("span", {}, bar, ` ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}`);
}
