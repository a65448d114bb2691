/** The state of a job on its page: what it does, its numbers, and a button that cancels it. */

import { send } from "./api.js";
import { announce, failure, h } from "./elements.js";
import { date, duration } from "./numbers.js";
import { confirms } from "./question.js";
import { badge, hasEnded } from "./states.js";

/** @import { RunError, RunState } from "./records.js" */
/** @typedef {import("./elements.js").Child} Child */
/** @typedef {{done: number, total: number, unit: string}} Progress */

/**
 * @param {{status: RunState, message: string, error: RunError | null, created_at: string, elapsed_seconds: number | null}} job
 * @param {Progress} progress
 * @param {[string, Child][]} others
 */
export function jobFacts(job, progress, others) {
  /** @type {[string, Child][]} */
  const pairs = [
    ["Status", badge(job)],
    ["Message", job.error?.message ?? job.message],
    ["Progress", progressOf(progress)],
    ["Created", date(job.created_at)],
    [hasEnded(job) ? "Took" : "Since then", duration(job.elapsed_seconds)],
    ...others,
  ];
  return h(
    "dl",
    { class: "facts" },
    ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** @param {Progress} progress */
export function progressOf({ done, total, unit }) {
  const bar = h("progress", { max: Math.max(1, total), value: done, "aria-label": "Progress" });
  return h("span", {}, bar, ` ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}`);
}

/**
 * Make a button that asks, and then cancels a job.
 * @param {string} address of the job
 * @param {string} name of the kind
 * @param {string} what is lost, and what stays
 * @param {() => Promise<unknown>} reload
 * @param {AbortSignal} signal
 */
export function cancelButton(address, name, what, reload, signal) {
  const button = h("button", { type: "button", onclick: cancel }, `Cancel the ${name}`);
  const trouble = h("div");
  async function cancel() {
    if (!(await confirms(`Cancel this ${name}? ${what}`, `Cancel the ${name}`, signal))) return;
    try {
      trouble.replaceChildren();
      await send(`${address}/cancel`, {}, signal);
      announce(`The ${name} is cancelled.`);
      await reload();
      document.querySelector("h1")?.focus(); // the button that had the focus is hidden
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(failure(error));
    }
  }
  return h("div", {}, button, trouble);
}
