/** What can be done with a run: cancel, resume, unlock, delete, train again. */

import { actionButton, deleteButton } from "./actions.js";
import { send } from "./api.js";
import { announce, h } from "./elements.js";
import { confirms } from "./question.js";
import { hasEnded } from "./states.js";
import { TABLES } from "./tables.js";

/** @import { Accepted, RunStatus, Unlocked } from "./records.js" */

const WAIT_SECONDS = 30;

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
  const unlock = actionButton("Read the test split", trouble, signal, async () => {
    const question = "Read the test split? The look is counted and cannot be taken back: do it when all else is decided.";
    if (!(await confirms(question, "Read it", signal))) return;
    /** @type {Unlocked} */
    let unlocked;
    do unlocked = await (await send(`/unlock?wait=${WAIT_SECONDS}`, { runs: [runId] }, signal)).json();
    while (unlocked.runs.some((one) => !hasEnded(one)));
    const [failed] = unlocked.runs.filter((one) => one.error);
    if (failed) throw new Error(failed.error?.message);
    announce("The test split is read.");
    await refresh();
  });
  const remove = deleteButton("run", `/runs/${runId}`, trouble, signal, () => (location.hash = "#/"));
  return {
    element: h(
      "div",
      {},
      h("div", { class: "bar" }, cancel, resume, unlock, remove, h("a", { href: `#/train?from=${runId}` }, "Train again with changes")),
      trouble,
    ),
    /** @param {RunStatus} run */
    show(run) {
      cancel.hidden = hasEnded(run);
      resume.hidden = !TABLES.resumable_states.includes(run.status);
      unlock.hidden = run.status !== "completed" || run.test_access === "open" || run.test_loss !== null;
      remove.hidden = !hasEnded(run);
    },
  };
}
