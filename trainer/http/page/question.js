/** A question before something that cannot be taken back. */

import { h } from "./elements.js";

/**
 * Ask in a dialog; gives true for the action, and false for the other button, Escape, or another view.
 * @param {string} question
 * @param {string} action the text of the button that confirms
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>}
 */
export function confirms(question, action, signal) {
  const answer = (/** @type {string} */ text, /** @type {string} */ value) =>
    h("button", { type: "button", onclick: () => dialog.close(value) }, text);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question" },
    h("p", { id: "question" }, question),
    h("div", { class: "bar" }, answer("No", ""), answer(action, "yes")),
  );
  document.body.append(dialog);
  dialog.showModal();
  signal.addEventListener("abort", () => dialog.close(""));
  return new Promise((resolve) => {
    dialog.onclose = () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    };
  });
}
