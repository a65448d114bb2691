/** The states of runs, and repeated calls that follow them. */

import { h } from "./elements.js";
import { TABLES } from "./tables.js";

/** @import { RunState } from "./records.js" */

const REFRESH_MILLISECONDS = 4000;

/** @param {{status: RunState}} job */
export function hasEnded(job) {
  return TABLES.final_states.includes(job.status);
}

/** @param {{status: RunState, reachable?: boolean}} run */
export function badge(run) {
  const name = run.status === "running" && run.reachable === false ? "running, worker not responding" : run.status;
  return h("span", { class: `badge ${run.status}` }, name);
}

/**
 * Do something again and again while the page is visible; a turn is left out while the last call has not ended.
 * @param {() => unknown} action
 * @param {AbortSignal} signal
 */
export function repeat(action, signal) {
  let isBusy = false;
  const timer = setInterval(async () => {
    if (document.hidden || isBusy) return;
    isBusy = true;
    try {
      await action();
    } finally {
      isBusy = false;
    }
  }, REFRESH_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(timer));
}
