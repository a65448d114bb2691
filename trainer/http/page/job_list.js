/** The jobs of one kind, newest first, which the page follows while it is shown, and the lists of all kinds. */

import { read } from "./api.js";
import { kept } from "./drafts.js";
import { failure, h, labelled, renew, scrolling, table, unreadableList } from "./elements.js";
import { columnsOf, fieldsOf } from "./job_columns.js";
import { capital, date, decimal } from "./numbers.js";
import { badge, hasEnded, repeat } from "./states.js";
import { TABLES } from "./tables.js";

/** @import { JobPage, JobStatus, JobTable, UnreadableJob } from "./records.js" */

const PAGE = 100;
const MAX_PAGE = 1000;
const MAX_VALUES = 2;

/** @param {HTMLElement} main @param {AbortSignal} signal */
export async function showKinds(main, signal) {
  const rows = TABLES.jobs.map(({ kind, title, words }) => ({ kind, title, words, count: h("span", {}, "…"), newest: h("span", {}, "…") }));
  const link = (/** @type {JobTable["kind"]} */ kind, /** @type {string} */ title) => h("a", { href: `#/${kind}` }, title);
  main.append(table("Jobs by kind", ["Kind", "Jobs", "Newest"], rows.map(({ kind, title, count, newest }) => [link(kind, title), count, newest])));
  await Promise.all(
    rows.map(async ({ kind, words, count, newest }) => {
      try {
        const { jobs, total } = await readJobs({ kind, words }, 1, signal);
        count.textContent = decimal(total, 0);
        newest.replaceChildren(...(jobs[0] ? [date(jobs[0].created_at), " ", badge(jobs[0])] : ["–"]));
      } catch (error) {
        if (signal.aborted) throw error;
        count.textContent = newest.textContent = "–"; // only admins see these
      }
    }),
  );
}

/**
 * Return the view with the list of a kind.
 * @param {JobTable} row
 */
export function listOf(row) {
  const { kind, title, word, start, command } = row;
  return async (/** @type {HTMLElement} */ main, /** @type {AbortSignal} */ signal) => {
    const columns = columnsOf(row);
    /** @type {JobStatus[]} */
    let jobs = [];
    let total = 0;
    let wanted = PAGE;
    /** @type {Map<string, HTMLTableRowElement>} */
    const rows = new Map();
    const body = h("tbody");
    const found = h("p", { class: "quiet", role: "status" });
    const trouble = h("div");
    const older = h("button", { type: "button", hidden: true, onclick: showOlder }, "Show older ones");
    const search = kept(h("input", { id: "search", type: "search", autocomplete: "off", oninput: narrow }), kind);
    const state = h(
      "select",
      { id: "status", onchange: narrow },
      h("option", { value: "" }, "any"),
      ...TABLES.states.map((name) => h("option", {}, name)),
    );
    const link = h("a", { href: `#/${kind}/new` }, `New ${word}`);
    const lost = h("div");
    const hint = h("p", { hidden: true }, start ? "There is none yet. Start one here, or by " : "There is none yet. Start one by ", h("code", {}, command), ".");
    const region = scrolling(
      title,
      h(
        "table",
        { class: "jobs" },
        h("caption", { class: "unseen" }, `${title}, newest first`),
        h("thead", {}, h("tr", {}, ...columns.map((column) => h("th", { scope: "col" }, capital(column.title))))),
        body,
      ),
    );
    main.append(
      ...(start ? [h("p", {}, link)] : []),
      h(
        "form",
        { role: "search", class: "bar", onsubmit: (event) => event.preventDefault() },
        labelled("Search", search),
        labelled("Status", kept(state, `${kind} status`)),
      ),
      found,
      lost,
      trouble,
      hint,
      region,
      older,
    );

    async function load() {
      const isNarrow = Boolean(search.value.trim() || state.value);
      try {
        const answer = await readJobs(row, isNarrow ? Infinity : wanted, signal);
        ({ jobs } = answer);
        total = answer.total - answer.unreadable.length;
        lost.replaceChildren(unreadableList(answer.unreadable));
        trouble.replaceChildren();
        draw();
      } catch (error) {
        if (!signal.aborted) trouble.replaceChildren(failure(error));
      }
    }

    async function showOlder() {
      const before = jobs.length;
      wanted += PAGE;
      await load();
      body.rows[before]?.querySelector("a")?.focus(); // the button may be hidden now
    }

    function narrow() {
      filter();
      if (jobs.length < total) void load();
    }

    function draw() {
      const made = jobs.map(rowOf);
      const shown = new Set(made);
      for (const [id, old] of rows) if (!shown.has(old)) (old.remove(), rows.delete(id));
      made.forEach((one, index) => {
        // a row that stays in its place keeps the focus
        if (body.children[index] !== one) body.insertBefore(one, body.children[index] ?? null);
      });
      filter();
    }

    function filter() {
      const typed = search.value.trim().toLowerCase();
      let count = 0;
      jobs.forEach((job, index) => {
        const one = body.rows[index];
        if (!one) return;
        one.hidden =
          Boolean(state.value && job.status !== state.value) || !one.textContent?.toLowerCase().includes(typed);
        if (!one.hidden) count += 1;
      });
      older.hidden = jobs.length >= total;
      hint.hidden = total > 0;
      region.hidden = total === 0;
      const unfinished = jobs.filter((job) => !hasEnded(job)).length;
      const all = older.hidden ? "" : `; ${total.toLocaleString("en")} in all`;
      const text = `${count} of ${jobs.length} shown, ${unfinished} unfinished${all}`;
      if (found.textContent !== text) found.textContent = text;
    }

    /** @param {JobStatus} job */
    function rowOf(job) {
      const id = String(fieldsOf(job)[`${row.word}_id`]);
      const one = rows.get(id) ?? h("tr");
      rows.set(id, one);
      columns.forEach(({ fields, write }, index) => {
        const reason = fields[0] === "status" && job.error ? h("small", {}, job.error.message) : null;
        const made = h(index ? "td" : "th", index ? {} : { scope: "row" }, write(job, MAX_VALUES), reason);
        const old = one.children[index];
        if (old) renew(old, made);
        else one.append(made);
      });
      return one;
    }

    repeat(load, signal);
    await load();
  };
}

/**
 * Read the newest jobs of a kind, the number of all, and those that the server cannot read.
 * @param {Pick<JobTable, "kind" | "words">} row
 * @param {number} wanted
 * @param {AbortSignal} signal
 */
export async function readJobs({ kind, words }, wanted, signal) {
  /** @type {JobStatus[]} */
  const jobs = [];
  /** @type {UnreadableJob[]} */
  const unreadable = [];
  let offset = 0;
  for (;;) {
    /** @type {JobPage & Record<string, JobStatus[]>} */
    const page = await read(`/${kind}?offset=${offset}&limit=${Math.min(wanted - jobs.length, MAX_PAGE)}`, signal);
    jobs.push(...(page[words] ?? []));
    unreadable.push(...page.unreadable);
    if (page.next_offset === null || jobs.length >= wanted) return { jobs, total: page.total, unreadable };
    offset = page.next_offset;
  }
}
