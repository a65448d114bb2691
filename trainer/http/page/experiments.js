/** The list of experiments. */

import { read } from "./api.js";
import { showJobs } from "./job_list.js";
import { progressOf } from "./job_status.js";
import { date, duration } from "./numbers.js";

/** @import { ExperimentList, ExperimentStatus } from "./records.js" */

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export function showExperiments(main, signal) {
  return showJobs(main, signal, {
    name: "Experiments",
    columns: ["Progress", "Validity", "Time", "Created"],
    read: async () => (await /** @type {Promise<ExperimentList>} */ (read("/experiments", signal))).experiments,
    address: ({ experiment_id }) => `#/experiments/${experiment_id}`,
    title: ({ experiment_id }) => experiment_id,
    cells: (experiment) => [
      experiment.error?.message ?? progressOf(cellsOf(experiment)),
      verdict(experiment),
      duration(experiment.elapsed_seconds),
      date(experiment.created_at),
    ],
  });
}

/** @param {ExperimentStatus} experiment */
export function verdict({ is_valid }) {
  return is_valid === null ? "–" : is_valid ? "✓ all checks passed" : "✗ a check failed";
}

/** @param {ExperimentStatus} experiment */
export function cellsOf({ cells_done, n_cells }) {
  return { done: cells_done, total: n_cells, unit: "cells" };
}
