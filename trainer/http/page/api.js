/** Requests to the server, with the API key of this tab where the server wants one, repeated where it does not answer. */

import { addressOf, isGateway, untilReachable } from "./connection.js";
import { forgetDrafts } from "./drafts.js";
import { TABLES } from "./tables.js";

/** @import { RunState } from "./records.js" */

const KEY = "api-key";
const WAIT_SECONDS = 10;
const LOGIN = "A proxy or a portal before the server asks for a login. Load this page again to log in.";
const NO_ANSWER = "The server does not answer. What you have entered is kept: try again when it is back.";

/** A refusal of the server. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   * @param {{path: string, message: string}[]} details the wrong fields
   */
  constructor(status, message, details = []) {
    super(message);
    this.status = status;
    this.details = details;
  }
}

/** @type {Promise<void> | null} */
let asking = null;

/**
 * Send a request; asks for an API key and repeats the request after an answer 401.
 *
 * Where the server does not answer, a request that may be sent twice is repeated once it answers again: one that reads,
 * and one with an Idempotency-Key.
 * @param {string} path
 * @param {{method?: string, headers?: Record<string, string>, body?: string | Blob, signal?: AbortSignal}} options
 * @returns {Promise<Response>}
 */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { "X-Api-Key": key }) };
  const isRepeatable = (options.method ?? "GET") === "GET" || "Idempotency-Key" in headers;
  /** @type {Response} */
  let response;
  try {
    response = await fetch(addressOf(path), { ...options, headers, cache: "no-store", redirect: "manual" });
    if (isGateway(response)) throw new ApiError(response.status, `${proxyAnswered(response)} ${NO_ANSWER}`);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    const back = untilReachable(options.signal);
    if (!isRepeatable) throw error instanceof ApiError ? error : new ApiError(0, NO_ANSWER);
    await back;
    return call(path, options);
  }
  if (isForeign(response)) throw new ApiError(0, LOGIN);
  if (response.status === 401 && !isWebPage(response)) {
    if (sessionStorage.getItem(KEY) === key) await (asking ??= askForKey(key !== null));
    options.signal?.throwIfAborted();
    return call(path, options);
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/**
 * Read a record; the server checks its own records, so their type is taken as it is.
 * @template Answer
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function read(path, signal) {
  return (await call(path, { signal })).json();
}

/**
 * Send a record once, however often the connection breaks off.
 * @param {string} path
 * @param {unknown} record
 * @param {AbortSignal} [signal]
 */
export function send(path, record, signal) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  return call(path, { method: "POST", headers, body: JSON.stringify(record), ...(signal ? { signal } : {}) });
}

/** Return true if requests of this tab carry an API key. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Forget the API key, and what was typed with it. */
export function forgetKey() {
  forgetDrafts();
  sessionStorage.removeItem(KEY);
}

/**
 * Wait for the end of an inference request or another job.
 *
 * An answer whose time to wait is over may have the status 200 without a result.
 * @template {{status: RunState, error: {message: string} | null}} Answer
 * @param {Response} response
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function endOf(response, signal) {
  const started = new URL(response.headers.get("Location") ?? "", response.url);
  const address = `${started.href}?wait=${WAIT_SECONDS}`;
  /** @type {Answer} */
  let answer = await response.json();
  while (!TABLES.final_states.includes(answer.status)) answer = await read(address, signal);
  if (answer.error) throw new Error(answer.error.message);
  return answer;
}

/** @param {Response} response */
async function refusal(response) {
  try {
    const { code, message, details } = await response.json();
    return new ApiError(response.status, code ? String(message) : proxyAnswered(response), details);
  } catch {
    return new ApiError(response.status, proxyAnswered(response));
  }
}

/** @param {Response} response */
function proxyAnswered({ status, statusText }) {
  return `A proxy before the server answered ${status}${statusText && ` (${statusText})`}.`;
}

/**
 * Return true for the page of a login or of a captive portal, or a redirection there; all answers of the server have an id.
 * @param {Response} response
 */
function isForeign(response) {
  const isPage = response.ok && isWebPage(response) && !response.headers.has("X-Request-ID");
  return isPage || response.type === "opaqueredirect";
}

/** @param {Response} response */
function isWebPage(response) {
  return response.headers.get("Content-Type")?.startsWith("text/html") ?? false;
}

/**
 * Show the form for the API key until it is sent.
 * @param {boolean} isWrong
 * @returns {Promise<void>}
 */
function askForKey(isWrong) {
  const dialog = /** @type {HTMLDialogElement} */ (document.getElementById("key"));
  const form = /** @type {HTMLFormElement} */ (document.getElementById("key-form"));
  const field = /** @type {HTMLInputElement} */ (document.getElementById("key-field"));
  const reason = /** @type {HTMLElement} */ (document.getElementById("key-reason"));
  if (isWrong) reason.textContent = "The server does not know this key. Check it, and send it again.";
  dialog.showModal();
  return new Promise((resolve, reject) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, field.value);
      document.getElementById("forget")?.removeAttribute("hidden");
      resolve();
      dialog.close();
    };
    dialog.onclose = () => {
      field.value = "";
      asking = null;
      reject(new ApiError(401, "This server needs an API key. Load the page again to enter one."));
    };
  });
}
