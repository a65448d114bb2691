/** Buttons that act, and show the refusal of the server as it is. */

import { ApiError, call } from "./api.js";
import { announce, failure, h } from "./elements.js";
import { confirms } from "./question.js";

const FORBIDDEN = 403;

/**
 * Make a button; it goes when the server says that this client may not do it.
 * @param {string} name
 * @param {HTMLElement} trouble where a refusal is shown
 * @param {AbortSignal} signal
 * @param {() => Promise<unknown>} act
 */
export function actionButton(name, trouble, signal, act) {
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
          if (signal.aborted) return;
          trouble.replaceChildren(failure(error));
          if (error instanceof ApiError && error.status === FORBIDDEN) made.remove();
        } finally {
          made.ariaBusy = "false";
          if (!signal.aborted && !made.checkVisibility()) document.querySelector("h1")?.focus(); // it had the focus
        }
      },
    },
    name,
  );
  return made;
}

/**
 * Make a button that asks, and then deletes something.
 * @param {string} what a noun, with a name where the page has several
 * @param {string} address
 * @param {HTMLElement} trouble
 * @param {AbortSignal} signal
 * @param {() => unknown} after
 */
export function deleteButton(what, address, trouble, signal, after) {
  return actionButton("Delete", trouble, signal, async () => {
    const question = `Delete the ${what} with all of its files? They cannot be brought back.`;
    if (!(await confirms(question, `Delete the ${what}`, signal))) return;
    await call(address, { method: "DELETE", signal });
    announce(`The ${what} is deleted.`);
    await after();
  });
}
