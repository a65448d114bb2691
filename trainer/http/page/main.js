/** The page: the view that the address names, and the API key. */

import { ApiError, forgetKey, hasKey } from "./api.js";
import { failure, h, setTitle } from "./elements.js";
import { capital } from "./numbers.js";
import { TABLES, listOf } from "./tables.js";
import { chooseUnitWith } from "./units.js";

/** @import { JobTable } from "./records.js" */
/** @typedef {(main: HTMLElement, signal: AbortSignal, argument: string, query: URLSearchParams) => Promise<void>} View */

const NOT_FOUND = 404;
/**
 * The form of each address, its title, and its module, which is loaded with the view.
 * @type {[RegExp, string, () => Promise<View>][]}
 */
const VIEWS = [
  [/^#\/runs\/([a-z0-9_-]+)$/, "Run", async () => (await import("./run.js")).showRun],
  [/^#\/groups\/([a-z0-9_-]+)$/, "Group", async () => (await import("./group.js")).showGroup],
  [/^#\/compare\/([a-z0-9_,~-]+)$/, "Comparison", async () => (await import("./comparison.js")).showComparison],
  [/^#\/text\/([A-Za-z0-9_@:.,-]+)$/, "Text", async () => (await import("./text.js")).showText],
  [/^#\/jobs$/, "Jobs", async () => (await import("./job_list.js")).showKinds],
  ...TABLES.jobs.flatMap(jobViews),
  [/^#\/train$/, "New run", async () => (await import("./train.js")).showTraining],
  [/^#\/corpora$/, "Corpora", async () => (await import("./corpora.js")).showCorpora],
  [/^#\/corpora\/(.+)$/, "Corpus", async () => (await import("./corpora.js")).showCorpus],
  [/^(?:#\/?)?$/, "Runs", async () => (await import("./runs.js")).showRuns],
];

/**
 * @param {JobTable} row
 * @returns {typeof VIEWS}
 */
function jobViews(row) {
  /** @type {typeof VIEWS} */
  const form = [[new RegExp(`^#/${row.kind}/new$`), `New ${row.word}`, async () => (await import("./train.js")).formOf(row)]];
  return [
    [new RegExp(`^#/${row.kind}$`), row.title, async () => (await import("./job_list.js")).listOf(row)],
    ...(row.start ? form : []),
    [new RegExp(`^#/${row.kind}/([a-z0-9_-]+)$`), capital(row.word), async () => (await import("./job.js")).viewOf(row)],
  ];
}

/** @param {string} address of what was not found */
function linkToList(address) {
  const { href, title } = listOf(address);
  return h("p", {}, h("a", { href }, `All ${title.toLowerCase()}`));
}

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const forget = /** @type {HTMLButtonElement} */ (document.getElementById("forget"));
let leaving = new AbortController();

/** @param {boolean} isFirst */
async function show(isFirst) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [address = "", query] = location.hash.split("?");
  const found = VIEWS.map(([form, title, load]) => ({ match: form.exec(address), title, load })).find(
    ({ match }) => match,
  );
  const heading = h("h1", { tabindex: -1 });
  const content = h("div");
  const loading = h("p", { class: "loading" }, "Loading …"); // hidden by its style when the view has something
  main.replaceChildren(heading, content, loading);
  setTitle(found?.title ?? "There is no such page");
  scrollTo(0, 0);
  if (!isFirst) heading.focus();
  try {
    const view = await found?.load();
    await view?.(content, signal, found?.match?.[1] ?? "", new URLSearchParams(query));
  } catch (error) {
    if (signal.aborted) return;
    content.append(failure(error));
    if (error instanceof ApiError && error.status === NOT_FOUND) content.append(linkToList(address));
  }
  loading.remove();
  if (!found) content.append(linkToList(address));
}

chooseUnitWith(/** @type {HTMLSelectElement} */ (document.getElementById("unit")));
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
