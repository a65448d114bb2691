/** What can be done with a run: cancel, resume, delete, train again. */

import { actionButton, deleteButton } from "./actions.js";
import { send } from "./api.js";
import { announce, h } from "./elements.js";
import { hasEnded } from "./states.js";
import { TABLES } from "./tables.js";

/** @import { Accepted, RunStatus } from "./records.js" */

/**
 * Make the buttons; `show` hides those that the state of the run does not allow.
 * @param {string} runId
 * @param {AbortSignal} signal
 * @param {() => Promise<unknown>} refresh
 */
export function actionsOf(runId, signal, refresh) {
  const trouble = h("div");
  const cancel = actionButton("Cancel", trouble, signal, async () => {
    await send(`/runs/${runId}/cancel`, {}, signal);
    announce("The run ends after its current step.");
    await refresh();
  });
  const resume = actionButton("Resume", trouble, signal, async () => {
    /** @type {Accepted} */
    const { run_id } = await (await send(`/runs/${runId}/resume`, {}, signal)).json();
    announce("The run is queued.");
    if (run_id === runId) await refresh();
    else location.hash = `#/runs/${run_id}`;
  });
  const remove = deleteButton("run", `/runs/${runId}`, trouble, signal, () => (location.hash = "#/"));
  return {
    element: h(
      "div",
      {},
      h("div", { class: "bar" }, cancel, resume, remove, h("a", { href: `#/train?from=${runId}` }, "Train again with changes")),
      trouble,
    ),
    /** @param {RunStatus} run */
    show(run) {
      cancel.hidden = hasEnded(run);
      resume.hidden = !TABLES.resumable_states.includes(run.status);
      remove.hidden = !hasEnded(run);
    },
  };
}
