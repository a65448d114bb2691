/** The list of runs: search, filters, order and columns, all kept in the address, and a choice of runs to compare. */

import { ApiError, read } from "./api.js";
import { GROUP_MARK } from "./comparison.js";
import { announce, failure, h, labelled, live } from "./elements.js";
import { COLUMNS } from "./run_columns.js";
import { RunTable } from "./run_table.js";
import { repeat } from "./states.js";
import { TABLES } from "./tables.js";
import { unit } from "./units.js";

/** @import { Row } from "./run_columns.js" */
/** @import { RunPage, RunStatus } from "./records.js" */

const TYPED = ["search", "corpus", "owner", "label", "where"];
const CHOSEN = ["status", "family"];
const MOST_COMPARED = TABLES.max_compared;
const USUAL_SORT = "created_at";
const SORTED = ["label", ...COLUMNS.map((column) => column.id)];
/** Columns that a click sorts from the lowest or first value on. */
const ASCENDING = new Set(["label", "model_family", "status", "owner", ...COLUMNS.map(({ id }) => id).filter(isLoss)]);

// they stay while other views are shown
/** @type {Set<string>} */
const picked = new Set();
let left = { address: "", top: 0 };

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _
 * @param {URLSearchParams} query
 */
export async function showRuns(main, signal, _, query) {
  const wanted = wantedOf(query);
  let isOnHold = false; // the filter was refused, or is being typed
  const trouble = h("div");
  const compare = h("button", {
    type: "button",
    onclick: () => (location.hash = `#/compare/${[...picked].join(",")}`),
  });
  const table = new RunTable(
    {
      read: readRows,
      pick: pickBox,
      sort,
      changed: () => {
        trouble.replaceChildren();
        const count = `${table.total.toLocaleString("en")} ${table.total === 1 ? "run" : "runs"} (a group counts as one)`;
        table.about.replaceChildren(live(() => `${count}; losses in ${unit()} per token`));
      },
      failed: (error) => {
        isOnHold = error instanceof ApiError && error.status < 500 && error.status !== 429;
        const made = failure(error);
        if (trouble.textContent === made.textContent) return;
        trouble.replaceChildren(made);
        const field = error instanceof ApiError && document.getElementById(error.details[0]?.path ?? "");
        if (field) field.after(trouble);
        else table.element.before(trouble);
      },
    },
    signal,
  );

  const readLater = later(readAnew);
  /** @param {string} name @param {string} title @param {string} example */
  const field = (name, title, example = "") => {
    const input = h("input", {
      id: name,
      type: name === "search" ? "search" : "text",
      value: wanted.filters[name] ?? "",
      placeholder: example,
      autocomplete: "off",
      spellcheck: "false",
      "aria-describedby": name === "where" && "where-help",
      oninput: (event) => {
        wanted.filters[name] = /** @type {HTMLInputElement} */ (event.target).value.trim();
        remember(false);
        isOnHold = true;
        readLater();
      },
    });
    return labelled(title, input);
  };
  /** @param {string} name @param {string} title @param {string[]} choices */
  const choice = (name, title, choices) => {
    const select = h(
      "select",
      {
        id: name,
        onchange: (event) => {
          wanted.filters[name] = /** @type {HTMLSelectElement} */ (event.target).value;
          remember(true);
          readAnew();
        },
      },
      h("option", { value: "" }, "any"),
      ...choices.map((one) => h("option", { selected: one === wanted.filters[name] }, one)),
    );
    return labelled(title, select);
  };
  const isFiltered = ["family", "corpus", "owner", "label", "where"].some((name) => wanted.filters[name]);
  main.append(
    h(
      "form",
      { role: "search", onsubmit: (event) => event.preventDefault() },
      h(
        "div",
        { class: "bar" },
        field("search", "Search by label, id or corpus"),
        choice("status", "Status", TABLES.states),
        compare,
      ),
      h(
        "details",
        { open: isFiltered },
        h("summary", {}, "More filters"),
        h(
          "div",
          { class: "filters" },
          choice("family", "Family", TABLES.families),
          field("corpus", "Corpus name contains"),
          field("owner", "Owner"),
          field("label", "Label contains"),
          field("where", "Numbers", "test_loss<3.2,progress>=50"),
        ),
        h("p", { id: "where-help", class: "quiet" }, `Names of the numbers: ${numberNames()}. Give losses in nats per token here.`),
      ),
      h(
        "details",
        {},
        h("summary", {}, "Columns"),
        h(
          "div",
          { class: "columns", role: "group", "aria-label": "Columns" },
          ...COLUMNS.map(({ id, title }) => {
            const box = h("input", {
              type: "checkbox",
              checked: wanted.columns.includes(id),
              onchange: () => {
                wanted.columns = COLUMNS.map((column) => column.id).filter((other) =>
                  other === id ? box.checked : wanted.columns.includes(other),
                );
                remember(true);
                arrange();
              },
            });
            return h("label", {}, box, title);
          }),
        ),
      ),
    ),
    trouble,
    table.element,
  );

  /**
   * @param {number} offset
   * @param {number} limit
   * @param {AbortSignal} reading
   */
  async function readRows(offset, limit, reading) {
    const asked = new URLSearchParams({ by_group: "true", offset: String(offset), limit: String(limit) });
    asked.set("sort", wanted.sort);
    asked.set("order", wanted.isDescending ? "desc" : "asc");
    for (const [name, value] of Object.entries(wanted.filters)) if (value) asked.set(name, value);
    /** @type {RunPage} */
    const page = await read(`/runs?${asked}`, reading);
    return { rows: rowsOf(page.runs), total: page.total };
  }

  /** @param {string} column */
  function sort(column) {
    wanted.isDescending = column === wanted.sort ? !wanted.isDescending : !ASCENDING.has(column);
    wanted.sort = column;
    arrange();
    remember(true);
    readAnew();
  }

  function arrange() {
    table.arrange(wanted.columns, wanted.sort, wanted.isDescending);
  }

  async function readAnew() {
    if (signal.aborted) return;
    isOnHold = false;
    await table.reset();
    announce(trouble.textContent || table.about.textContent || "");
  }

  /** @param {boolean} isStep the address before is one step back */
  function remember(isStep) {
    const address = addressOf(wanted);
    if (isStep) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  }

  /** @param {Row | RunStatus} one */
  function pickBox(one) {
    const isGroup = "runs" in one;
    const id = isGroup ? `${GROUP_MARK}${one.name}` : one.run_id;
    const name = isGroup ? one.runs[0]?.label ?? one.name : one.label ?? one.run_id;
    const box = h("input", {
      type: "checkbox",
      value: id,
      checked: picked.has(id),
      disabled: picked.size >= MOST_COMPARED && !picked.has(id),
      "aria-label": `Compare ${isGroup ? "the group " : ""}${name}`,
      onchange: () => pick(box),
    });
    return box;
  }

  /** @param {HTMLInputElement} box */
  function pick(box) {
    if (box.checked) picked.add(box.value);
    else picked.delete(box.value);
    drawPicked();
    announce(compare.textContent ?? "");
  }

  function drawPicked() {
    compare.disabled = picked.size < 2;
    compare.textContent = picked.size < 2 ? `Compare: pick 2 to ${MOST_COMPARED} runs` : `Compare ${picked.size} runs`;
    for (const box of table.element.querySelectorAll("input")) {
      box.disabled = picked.size >= MOST_COMPARED && !box.checked;
    }
  }

  signal.addEventListener("abort", () => (left = { address: addressOf(wanted), top: table.top }));
  arrange();
  drawPicked();
  repeat(() => isOnHold || table.refresh(), signal);
  await table.reset(left.address === addressOf(wanted) ? left.top : 0);
}

/** @typedef {{filters: Record<string, string>, sort: string, isDescending: boolean, columns: string[]}} Wanted */

/**
 * Return what an address asks for; what is unknown in it counts as left out.
 * @param {URLSearchParams} query
 * @returns {Wanted}
 */
function wantedOf(query) {
  const sort = query.get("sort") ?? "";
  const columns = query.get("columns")?.split(",") ?? [];
  const chosen = COLUMNS.map(({ id }) => id).filter((id) => columns.includes(id));
  return {
    filters: Object.fromEntries([...TYPED, ...CHOSEN].map((name) => [name, query.get(name) ?? ""])),
    sort: SORTED.includes(sort) ? sort : USUAL_SORT,
    isDescending: query.get("order") !== "asc",
    columns: query.has("columns") ? chosen : usualColumns(),
  };
}

/** @param {Wanted} wanted */
function addressOf({ filters, sort, isDescending, columns }) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) if (value) query.set(name, value);
  if (sort !== USUAL_SORT) query.set("sort", sort);
  if (!isDescending) query.set("order", "asc");
  if (columns.join() !== usualColumns().join()) query.set("columns", columns.join());
  const text = query.toString().replaceAll("%2C", ",");
  return text ? `#/?${text}` : "#/";
}

function usualColumns() {
  return COLUMNS.filter((column) => column.isUsual).map((column) => column.id);
}

/** @param {string} id */
function isLoss(id) {
  return id.endsWith("loss") || id.endsWith("bits_per_char");
}

function numberNames() {
  const names = COLUMNS.map(({ id }) => id).filter((id) => isLoss(id) || id === "progress" || id === "params");
  return names.join(", ");
}

/**
 * Return the rows of runs: those of a group stand one after another.
 * @param {RunStatus[]} runs
 */
function rowsOf(runs) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  for (const run of runs) {
    const name = run.group?.group_id ?? run.run_id;
    const row = rows.get(name) ?? { name, isGroup: run.group !== null, runs: [] };
    rows.set(name, row);
    row.runs.push(run);
  }
  return [...rows.values()];
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
