/** The notice that the server does not answer, until it answers again. */

import { h } from "./elements.js";

const PAUSE_MILLISECONDS = 2000;

/** @type {Promise<void> | null} */
let waiting = null;

/**
 * Show the notice until the server answers; ends early with the view.
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export async function untilReachable(signal) {
  waiting ??= reachable();
  await (signal ? Promise.race([waiting, aborted(signal)]) : waiting);
  signal?.throwIfAborted();
}

async function reachable() {
  let retry = () => {};
  const button = h("button", { type: "button", onclick: () => retry() }, "Try now");
  const text = "The server does not answer. This page goes on by itself when it is back.";
  const notice = h("div", { class: "notice", role: "alert" }, h("p", {}, text), button);
  document.body.prepend(notice);
  while (!(await answers())) {
    await new Promise((/** @type {(value: void) => void} */ resolve) => {
      retry = resolve;
      setTimeout(resolve, PAUSE_MILLISECONDS);
    });
  }
  notice.remove();
  waiting = null;
}

async function answers() {
  try {
    return (await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(PAUSE_MILLISECONDS) })).ok;
  } catch {
    return false;
  }
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function aborted(signal) {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}
