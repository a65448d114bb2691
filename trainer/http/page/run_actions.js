/** What can be done with a run: cancel, resume, delete, train again. */

import { call, send } from "./api.js";
import { announce, failure, h } from "./elements.js";
import { confirms } from "./question.js";
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
  const cancel = button("Cancel", async () => {
    await send(`/runs/${runId}/cancel`, {}, signal);
    announce("The run ends after its current step.");
    await refresh();
  });
  const resume = button("Resume", async () => {
    /** @type {Accepted} */
    const { run_id } = await (await send(`/runs/${runId}/resume`, {}, signal)).json();
    announce("The run is queued.");
    if (run_id === runId) await refresh();
    else location.hash = `#/runs/${run_id}`;
  });
  const remove = button("Delete", async () => {
    const question = "Delete this run with all of its files? They cannot be brought back.";
    if (!(await confirms(question, "Delete the run", signal))) return;
    await call(`/runs/${runId}`, { method: "DELETE", signal });
    announce("The run is deleted.");
    location.hash = "#/";
  });

  /**
   * @param {string} name
   * @param {() => Promise<void>} act
   */
  function button(name, act) {
    const made = h(
      "button",
      {
        type: "button",
        onclick: async () => {
          if (made.ariaBusy === "true") return; // a disabled button would lose the focus
          made.ariaBusy = "true";
          trouble.replaceChildren();
          try {
            await act();
          } catch (error) {
            if (!signal.aborted) trouble.replaceChildren(failure(error));
          } finally {
            made.ariaBusy = "false";
          }
        },
      },
      name,
    );
    return made;
  }

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
