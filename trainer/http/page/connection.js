/** The notice that the server does not answer, until it answers again. */

import { h } from "./elements.js";

const PAUSE_MILLISECONDS = 2000;
/** Statuses of a proxy whose server does not answer; those from 520 on are Cloudflare's. */
const GATEWAY = new Set([502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530]);

/** @type {Promise<void> | null} */
let waiting = null;

/**
 * Return the address of a path of this server, which a proxy may have put below a path of its own.
 * @param {string} path
 */
export function addressOf(path) {
  return path.startsWith("/") ? `.${path}` : path;
}

/**
 * Return true for an answer of a proxy whose server does not answer.
 * @param {Response} response
 */
export function isGateway(response) {
  return GATEWAY.has(response.status) && !response.headers.get("Content-Type")?.startsWith("application/json");
}

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
    const signal = AbortSignal.timeout(PAUSE_MILLISECONDS);
    return !isGateway(await fetch(addressOf("/healthz"), { cache: "no-store", redirect: "manual", signal }));
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
