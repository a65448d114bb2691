/** The list of runs, with search, filter and a choice of runs to compare. */

import { read } from "./api.js";
import { GROUP_MARK } from "./comparison.js";
import { announce, bdi, failure, h, scrolling } from "./elements.js";
import { bitsPerChar, date, decimal, meanOf, percent } from "./numbers.js";
import { badge, hasEnded, repeat } from "./states.js";

/** @import { RunPage, RunStatus } from "./records.js" */

const STATES = ["queued", "running", "paused", "completed", "failed", "cancelled"];
const COLUMNS = [
  "Compare",
  "Run",
  "Status",
  "Family",
  "Progress",
  "Train loss",
  "Validation loss",
  "Test loss",
  "Bits per character",
  "Owner",
  "Created",
];
const MOST_COMPARED = 4;
const PAGE_SIZE = 50;
const LARGEST_PAGE = 200;

// they stay while other views are shown
const wanted = { search: "", status: "" };
/** @type {Set<string>} */
const picked = new Set();
/** @type {Set<string>} the groups whose runs are listed */
const opened = new Set();

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function showRuns(main, signal) {
  /** @type {Map<string, RunStatus>} */
  const shown = new Map();
  /** @type {Map<string, HTMLTableRowElement>} */
  const rows = new Map();
  /** @type {string | null} */
  let cursor = null;
  let asked = 0;

  const body = h("tbody");
  const found = h("p", { class: "quiet" });
  const trouble = h("div");
  const compare = h("button", {
    type: "button",
    onclick: () => (location.hash = `#/compare/${[...picked].join(",")}`),
  });
  const more = h("button", { type: "button", hidden: true, onclick: () => load(cursor) }, "More runs");
  const search = h("input", {
    id: "search",
    type: "search",
    value: wanted.search,
    autocomplete: "off",
    oninput: later(changed),
  });
  const status = h(
    "select",
    { id: "status", onchange: changed },
    h("option", { value: "" }, "any"),
    ...STATES.map((state) => h("option", { selected: state === wanted.status }, state)),
  );
  const head = h("thead", {}, h("tr", {}, ...COLUMNS.map((name) => h("th", { scope: "col" }, name))));
  main.append(
    h(
      "form",
      { role: "search", class: "bar", onsubmit: (event) => event.preventDefault() },
      h("label", { for: "search" }, "Search by label, id or corpus"),
      search,
      h("label", { for: "status" }, "Status"),
      status,
      compare,
    ),
    found,
    trouble,
    scrolling(
      "Runs; losses in nats per token",
      h(
        "table",
        { class: "runs" },
        h("caption", { class: "unseen" }, "Runs, newest first; losses in nats per token"),
        head,
        body,
      ),
    ),
    more,
  );

  /** @param {string | null} after @param {number} limit */
  async function load(after, limit = PAGE_SIZE) {
    const number = ++asked;
    const query = new URLSearchParams({ limit: String(limit), ...(after === null ? {} : { cursor: after }) });
    for (const [name, value] of Object.entries(wanted)) if (value) query.set(name, value);
    try {
      /** @type {RunPage} */
      const page = await read(`/runs?${query}`, signal);
      if (number !== asked) return;
      if (after === null) shown.clear();
      for (const run of page.runs) shown.set(run.run_id, run);
      cursor = page.next_cursor;
      trouble.replaceChildren();
      draw();
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(failure(error));
    }
  }

  function draw() {
    /** @type {Map<string, RunStatus[]>} */
    const listed = new Map();
    for (const run of shown.values()) {
      const name = run.group?.group_id ?? run.run_id;
      listed.set(name, [...(listed.get(name) ?? []), run]);
    }
    const ids = [...listed].flatMap(([name, runs]) => {
      const row = rows.get(name) ?? h("tr");
      rows.set(name, row);
      const [first] = runs;
      if (!first?.group) {
        if (first) fill(row, cells(first));
        return [name];
      }
      fill(row, groupCells(name, runs));
      if (!opened.has(name)) return [name];
      for (const run of runs) {
        const member = rows.get(run.run_id) ?? h("tr", { class: "member" });
        rows.set(run.run_id, member);
        fill(member, cells(run));
      }
      return [name, ...runs.map((run) => run.run_id)];
    });
    for (const [id, row] of rows) if (!ids.includes(id)) row.remove();
    ids.forEach((id, index) => {
      const row = rows.get(id);
      // a row that stays in its place keeps the focus
      if (row && body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
    });
    more.hidden = cursor === null;
    found.textContent = `${shown.size}${cursor === null ? "" : " newest"} ${shown.size === 1 ? "run" : "runs"}`;
    drawPicked();
  }

  function drawPicked() {
    compare.disabled = picked.size < 2;
    compare.textContent = picked.size < 2 ? `Compare: pick 2 to ${MOST_COMPARED} runs` : `Compare ${picked.size} runs`;
    for (const box of body.querySelectorAll("input")) {
      box.checked = picked.has(box.value);
      box.disabled = picked.size >= MOST_COMPARED && !box.checked;
    }
  }

  /** @param {RunStatus} run */
  function cells(run) {
    const name = run.label ?? run.run_id;
    const box = h("input", {
      type: "checkbox",
      value: run.run_id,
      "aria-label": `Compare ${name}`,
      onchange: () => pick(box),
    });
    return [
      box,
      h(
        "span",
        {},
        h("a", { href: `#/runs/${run.run_id}` }, bdi(name)),
        run.label === null ? null : h("small", {}, run.run_id),
      ),
      badge(run),
      run.model_family,
      percent(run.progress / 100, 0),
      decimal(run.train_loss),
      decimal(run.val_loss),
      decimal(run.test_loss),
      bitsPerChar(run.bits_per_char ?? run.val_bits_per_char, run.unknown_char_share),
      bdi(run.owner ?? "–"),
      date(run.created_at),
    ];
  }

  /**
   * Return the cells of a group: the means of its completed runs with their deviations.
   * @param {string} id
   * @param {RunStatus[]} runs
   */
  function groupCells(id, runs) {
    const [first] = runs;
    const name = first?.label ?? id;
    const completed = runs.filter((run) => run.status === "completed");
    const box = h("input", {
      type: "checkbox",
      value: `${GROUP_MARK}${id}`,
      "aria-label": `Compare the group ${name}`,
      onchange: () => pick(box),
    });
    const isOpen = opened.has(id);
    const toggle = h(
      "button",
      { type: "button", "aria-expanded": String(isOpen), onclick: () => open(id) },
      `${isOpen ? "▾" : "▸"} ${runs.length} runs`,
    );
    const mean = (/** @type {(run: RunStatus) => number | null} */ value, digits = 3) => meanOf(completed.map(value), digits);
    return [
      box,
      h("span", {}, h("a", { href: `#/groups/${id}` }, bdi(name)), " ", toggle),
      `${completed.length} of ${runs.length} completed`,
      first?.model_family ?? "",
      percent(runs.reduce((sum, run) => sum + run.progress, 0) / runs.length / 100, 0),
      mean((run) => run.train_loss),
      mean((run) => run.val_loss),
      mean((run) => run.test_loss),
      mean((run) => run.bits_per_char, 2),
      bdi(first?.owner ?? "–"),
      date(first?.created_at ?? ""),
    ];
  }

  /** @param {string} id */
  function open(id) {
    if (!opened.delete(id)) opened.add(id);
    draw();
  }

  /** @param {HTMLInputElement} box */
  function pick(box) {
    if (box.checked) picked.add(box.value);
    else picked.delete(box.value);
    drawPicked();
    announce(compare.textContent ?? "");
  }

  async function changed() {
    wanted.search = search.value.trim();
    wanted.status = status.value;
    await load(null);
    announce(found.textContent ?? "");
  }

  repeat(async () => {
    if ([...shown.values()].some((run) => !hasEnded(run)))
      await load(null, Math.min(LARGEST_PAGE, Math.max(PAGE_SIZE, shown.size)));
  }, signal);
  await load(null);
}

/**
 * Put new cells into a row, but leave those alone that say the same as before, as one may have the focus.
 * @param {HTMLTableRowElement} row
 * @param {(Node | string)[]} contents
 */
function fill(row, contents) {
  contents.forEach((content, index) => {
    const made = h(index === 1 ? "th" : "td", index === 1 ? { scope: "row" } : {}, content);
    const old = row.children[index];
    if (!old) row.append(made);
    else if (old.textContent !== made.textContent) old.replaceWith(made);
  });
}

/**
 * Return a function that acts when it has not been called for a moment.
 * @param {() => void} action
 */
function later(action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, 250);
  };
}
