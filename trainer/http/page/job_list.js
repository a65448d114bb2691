/** A list of jobs of one kind, newest first, which follows them while it is shown. */

import { failure, h, labelled, scrolling } from "./elements.js";
import { kept } from "./drafts.js";
import { badge, hasEnded, repeat } from "./states.js";
import { TABLES } from "./tables.js";

/** @import { RunState } from "./records.js" */
/** @typedef {import("./elements.js").Child} Child */

/**
 * @template {{status: RunState}} Job
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {{
 *   name: string, columns: string[], read: () => Promise<Job[]>, address: (job: Job) => string, title: (job: Job) => string,
 *   cells: (job: Job) => Child[],
 * }} kind `cells` follow the title and the state
 */
export async function showJobs(main, signal, kind) {
  /** @type {Job[]} */
  let jobs = [];
  /** @type {Map<string, HTMLTableRowElement>} */
  const rows = new Map();
  const body = h("tbody");
  const found = h("p", { class: "quiet", role: "status" });
  const trouble = h("div");
  const search = kept(h("input", { id: "search", type: "search", autocomplete: "off", oninput: filter }), kind.name);
  const state = h(
    "select",
    { id: "status", onchange: filter },
    h("option", { value: "" }, "any"),
    ...TABLES.states.map((name) => h("option", {}, name)),
  );
  main.append(
    h(
      "form",
      { role: "search", class: "bar", onsubmit: (event) => event.preventDefault() },
      labelled("Search", search),
      labelled("Status", kept(state, `${kind.name} status`)),
    ),
    found,
    trouble,
    scrolling(
      kind.name,
      h(
        "table",
        { class: "jobs" },
        h("caption", { class: "unseen" }, `${kind.name}, newest first`),
        h(
          "thead",
          {},
          h("tr", {}, ...["Name", "Status", ...kind.columns].map((name) => h("th", { scope: "col" }, name))),
        ),
        body,
      ),
    ),
  );

  async function load() {
    try {
      jobs = await kind.read();
      trouble.replaceChildren();
      draw();
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(failure(error));
    }
  }

  function draw() {
    const made = jobs.map(rowOf);
    const shown = new Set(made);
    for (const row of rows.values()) if (!shown.has(row)) row.remove();
    made.forEach((row, index) => {
      // a row that stays in its place keeps the focus
      if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    });
    filter();
  }

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    for (const job of jobs) {
      const row = rows.get(kind.address(job));
      if (!row) continue;
      row.hidden =
        Boolean(state.value && job.status !== state.value) || !row.textContent?.toLowerCase().includes(wanted);
      if (!row.hidden) count += 1;
    }
    const unfinished = jobs.filter((job) => !hasEnded(job)).length;
    const text = `${count} of ${jobs.length} shown, ${unfinished} unfinished`;
    if (found.textContent !== text) found.textContent = text;
  }

  /** @param {Job} job */
  function rowOf(job) {
    const address = kind.address(job);
    const row = rows.get(address) ?? h("tr");
    rows.set(address, row);
    const link = h("a", { href: address }, h("bdi", {}, kind.title(job)));
    [link, badge(job), ...kind.cells(job)].forEach((content, index) => {
      const made = index ? h("td", {}, content) : h("th", { scope: "row" }, content);
      const old = row.children[index];
      if (!old) row.append(made);
      else if (!old.isEqualNode(made)) old.replaceWith(made);
    });
    return row;
  }

  repeat(load, signal);
  await load();
}
