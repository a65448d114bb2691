/** The page: the view that the address names, and the API key. */

import { forgetKey, hasKey } from "./api.js";
import { showComparison } from "./comparison.js";
import { failure, h, setTitle } from "./elements.js";
import { showGroup } from "./group.js";
import { showRun } from "./run.js";
import { showRuns } from "./runs.js";

/** @typedef {(main: HTMLElement, signal: AbortSignal, argument: string) => Promise<void>} View */

/** @type {[RegExp, string, View][]} */
const VIEWS = [
  [/^#\/runs\/([a-z0-9_-]+)$/, "Run", showRun],
  [/^#\/groups\/([a-z0-9_-]+)$/, "Group", showGroup],
  [/^#\/compare\/([a-z0-9_,~-]+)$/, "Comparison", showComparison],
  [/^(?:#\/?)?$/, "Runs", showRuns],
];

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const forget = /** @type {HTMLButtonElement} */ (document.getElementById("forget"));
let leaving = new AbortController();

/** @param {boolean} isFirst */
async function show(isFirst) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const found = VIEWS.map(([form, title, view]) => ({ match: form.exec(location.hash), title, view })).find(
    ({ match }) => match,
  );
  const heading = h("h1", { tabindex: -1 });
  const content = h("div");
  main.replaceChildren(heading, content);
  setTitle(found?.title ?? "There is no such page");
  scrollTo(0, 0);
  if (!isFirst) heading.focus();
  try {
    await found?.view(content, signal, found.match?.[1] ?? "");
  } catch (error) {
    if (!signal.aborted) content.append(failure(error));
  }
}

forget.hidden = !hasKey();
forget.addEventListener("click", () => {
  forgetKey();
  location.reload();
});
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after # names the view
  main.focus();
});
addEventListener("hashchange", () => show(false));
await show(true);
