/** Requests to the server, with the API key of this tab where the server wants one. */

const KEY = "api-key";

/** A refusal of the server. */
export class ApiError extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @type {Promise<void> | null} */
let asking = null;

/**
 * Send a request; asks for an API key and repeats the request after an answer 401.
 * @param {string} path
 * @param {{method?: string, headers?: Record<string, string>, body?: string, signal?: AbortSignal}} options
 * @returns {Promise<Response>}
 */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key === null ? {} : { "X-Api-Key": key }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) {
    if (sessionStorage.getItem(KEY) === key) await (asking ??= askForKey(key !== null));
    options.signal?.throwIfAborted();
    return call(path, options);
  }
  if (!response.ok) throw new ApiError(response.status, await message(response));
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

/** Return true if requests of this tab carry an API key. */
export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

/** Forget the API key. */
export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

/** @param {Response} response */
async function message(response) {
  try {
    return String((await response.json()).message);
  } catch {
    return `The server answered ${response.status}.`;
  }
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
