/** Where a run or a group comes from, and the runs that started from it, as links. */

import { read } from "./api.js";
import { bdi, failure, h, section, table } from "./elements.js";
import { date, loss } from "./numbers.js";
import { badge } from "./states.js";
import { unit } from "./units.js";

/** @import { RunPage, RunRequest, RunStatus } from "./records.js" */

const MAX_CHILDREN = 200;

/**
 * Return the links to the group of a run, and to what it comes from.
 * @param {RunRequest} request
 * @param {string} [groupId]
 */
export function originLinks({ parent_run_id, resumed_from_run_id, experiment_id, study_id }, groupId) {
  /** @type {[string, string, string | undefined | null][]} */
  const links = [
    ["Group", "groups", groupId],
    ["Initial weights of", "runs", parent_run_id],
    ["Resumed from", "runs", resumed_from_run_id],
    ["Experiment", "experiments", experiment_id],
    ["Study", "studies", study_id],
  ];
  return links.flatMap(([name, view, id]) => (id ? [`${name} `, h("a", { href: `#/${view}/${id}` }, id), ". "] : []));
}

/**
 * Make a section with the runs that started from a run, or from the runs of a group; it stays empty if there are none.
 * @param {string} id
 * @param {AbortSignal} signal
 */
export function startedFrom(id, signal) {
  const place = h("div");
  const load = async () => {
    /** @type {RunPage} */
    const { runs, total } = await read(`/runs?parent=${id}&limit=${MAX_CHILDREN}`, signal);
    const rows = runs.filter(({ group }) => group?.group_id !== id).map(cells);
    if (rows.length === 0) return;
    const left = total > MAX_CHILDREN ? h("p", { class: "quiet" }, `The newest ${MAX_CHILDREN} of ${total} runs.`) : null;
    const losses = ["Validation, best", "Test"].map((name) => () => `${name}: ${unit()} per token`);
    const head = ["Run", "Status", ...losses, "Created"];
    place.append(section("Runs that started from it", left, table("Runs with its weights or checkpoints", head, rows)));
  };
  load().catch((error) => signal.aborted || place.append(failure(error)));
  return place;
}

/** @param {RunStatus} run */
function cells(run) {
  const link = h("a", { href: `#/runs/${run.run_id}` }, bdi(run.label ?? run.run_id));
  return [h("span", {}, link, h("small", {}, run.run_id)), badge(run), () => loss(run.best_val_loss), () => loss(run.test_loss), date(run.created_at)];
}
