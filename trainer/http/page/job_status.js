/** The state of a job on its page: what it does, its numbers, and a button that cancels it. */

import { send } from "./api.js";
import { announce, failure, h } from "./elements.js";
import { date, duration } from "./numbers.js";
import { confirms } from "./question.js";
import { badge, hasEnded } from "./states.js";

/** @import { RunError, RunState } from "./records.js" */
/** @typedef {import("./elements.js").Child} Child */

/**
 * @param {{status: RunState, message: string, error: RunError | null, created_at: string, elapsed_seconds: number | null}} job
 * @param {{done: number, total: number, unit: string}} progress
 * @param {[string, Child][]} others
 */
export function jobFacts(job, { done, total, unit }, others) {
  /** @type {[string, Child][]} */
  const pairs = [
    ["Status", badge(job)],
    ["Message", job.error?.message ?? job.message],
    [
      "Progress",
      h(
        "span",
        {},
        h("progress", { max: Math.max(1, total), value: done, "aria-label": "Progress" }),
        ` ${done.toLocaleString("en")} of ${total.toLocaleString("en")} ${unit}`,
      ),
    ],
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
