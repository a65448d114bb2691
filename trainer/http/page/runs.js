/** The list of runs: their curves, filters, order, groups and columns, all kept in the address, and runs to compare. */

import { ApiError, read } from "./api.js";
import { GROUP_MARK } from "./comparison.js";
import { announce, bdi, failure, h, labelled, live, renew, unreadableList } from "./elements.js";
import { COLUMNS, runLink, settingColumn } from "./run_columns.js";
import { ratioOf } from "./curve_lines.js";
import { TrainingCurves, curveButton } from "./run_curves.js";
import { hasEnded, repeat } from "./states.js";
import { counted, TABLES } from "./tables.js";
import { unit } from "./units.js";

/** @import { Column, Row } from "./run_columns.js" */
/** @import { RunPage, ValueTotals } from "./records.js" */
/** @typedef {{filters: Record<string, string>, sort: string, isDescending: boolean, columns: string[], group: string, page: number}} Wanted */

const PAGE_ROWS = 25;
const FILTERS = ["search", "status", "owner", "where"];
const USUAL_SORT = "created_at";
const FIELDS = ["label", ...COLUMNS.map(({ id }) => id)];
/** Columns that a click sorts from the highest or last value on; a setting is sorted from its lowest on. */
const DESCENDING = TABLES.run_columns.filter(({ form }) => form === "time" || form === "percent" || form === "count");
/** Curves have these colours, and then the same ones dashed and dotted. */
const COLOURS = 10;
const DASHES = ["", " dashed", " dotted"];

/** @type {Set<string>} the runs to compare, which stay while other views are shown */
const picked = new Set();
/** @type {Set<string>} the runs and groups whose curves are hidden, which stay so while other views are shown */
const hidden = new Set();

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _
 * @param {URLSearchParams} query
 */
export async function showRuns(main, signal, _, query) {
  const wanted = wantedOf(query);
  let turn = 0;
  let isOnHold = false; // the filter was refused, or is being typed
  /** @type {RunPage} */
  let page = { runs: [], total: 0, next_cursor: null, unreadable: [], settings: {}, varied_settings: [], totals: [] };
  /** @type {Set<string>} the groups over seeds whose runs are shown */
  const opened = new Set();
  const trouble = h("div");
  const about = h("p", { class: "quiet" });
  const lost = h("div");
  const nothing = h("div", { class: "empty", hidden: true });
  const pages = h("nav", { class: "bar", "aria-label": "Pages of the list" });
  const compare = h("button", { type: "button", onclick: () => (location.hash = `#/compare/${[...picked].join(",")}`) });
  const counts = h("div", { class: "bar above" }, about, pages, compare);
  const columns = h("div", { class: "columns", role: "group", "aria-label": "Columns" });
  const names = h("datalist", { id: "settings" });
  const caption = () => `Runs; losses in ${unit()} per token`;
  const table = h("table", { class: "runs" }, h("caption", { class: "unseen" }, caption), h("thead"), h("tbody"));
  const region = h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": caption }, table);
  const curves = new TrainingCurves([], signal, true);

  const readLater = later(readAnew);
  /** @param {string} name @param {string} title @param {Record<string, string>} attributes */
  const field = (name, title, attributes = {}) => {
    const input = h("input", {
      ...{ id: name, value: wanted.filters[name] ?? "", autocomplete: "off", spellcheck: "false", ...attributes },
      oninput: () => {
        wanted.filters[name] = input.value.trim();
        wanted.page = 1;
        remember(false);
        isOnHold = true;
        readLater();
      },
    });
    return labelled(title, input);
  };
  /** @param {string} id @param {string} title @param {(value: string) => void} take */
  const choice = (id, title, take) =>
    labelled(title, h("select", { id, onchange: (event) => change(() => take(/** @type {HTMLSelectElement} */ (event.target).value)) }));
  const status = choice("status", "Status", (value) => (wanted.filters["status"] = value));
  const group = choice("group", "Group by", (value) => (wanted.group = value));
  main.append(
    h(
      "form",
      { role: "search", class: "bar above", onsubmit: (event) => event.preventDefault() },
      field("search", "Search", { type: "search", placeholder: "label, tag, note, id or corpus" }),
      field("where", "Where", { placeholder: "test_loss<3.2, learning_rate=0.01", list: "settings", "aria-describedby": "where-help" }),
      status,
      group,
      names,
    ),
    trouble,
    nothing,
    curves.element,
    h(
      "details",
      {},
      h("summary", {}, "Columns, owner and conditions"),
      columns,
      h("div", { class: "bar" }, field("owner", "Owner")),
      h("p", { id: "where-help", class: "quiet" }, `Conditions name a setting, such as optimizer.name=adamw or tags=pilot, or a number: ${numberNames()}. Give losses in nats per token here.`),
    ),
    counts,
    lost,
    region,
  );
  offer(status, ["", ...TABLES.states], "any", wanted.filters["status"]);

  async function readAnew() {
    if (signal.aborted) return;
    isOnHold = false;
    await load();
    announce(trouble.textContent || about.textContent || "");
  }

  async function load() {
    const shown = [...new Set([...wanted.columns.filter((id) => !FIELDS.includes(id)), ...(wanted.group ? [wanted.group] : [])])];
    const asked = new URLSearchParams({ by_group: "true", limit: String(PAGE_ROWS), offset: String(PAGE_ROWS * (wanted.page - 1)) });
    asked.set("sort", wanted.group || wanted.sort);
    asked.set("order", wanted.isDescending && !wanted.group ? "desc" : "asc");
    asked.set("settings", shown.join());
    if (wanted.group) asked.set("totals", "true");
    for (const name of FILTERS) if (wanted.filters[name]) asked.set(name, wanted.filters[name]);
    const mine = ++turn;
    try {
      /** @type {RunPage} */
      const found = await read(`/runs?${asked.toString().replaceAll("%2C", ",")}`, signal);
      if (mine !== turn) return; // what is wanted has changed
      page = found;
      trouble.replaceChildren();
    } catch (error) {
      if (signal.aborted || mine !== turn) return;
      isOnHold = error instanceof ApiError && error.status < 500 && error.status !== 429;
      if (isOnHold) curves.element.hidden = region.hidden = counts.hidden = nothing.hidden = true; // the rows are of another filter
      const made = failure(error);
      if (trouble.textContent !== made.textContent) trouble.replaceChildren(made);
      return;
    }
    await drawCurves(draw());
  }

  /** @param {Row[]} rows */
  async function drawCurves(rows) {
    const shown = rows.filter(({ name }) => !hidden.has(name));
    await curves.show(
      shown.map((row) => ({
        path: `/${row.isGroup ? "groups" : "runs"}/${row.name}`,
        isEnded: row.runs.every(hasEnded),
        train: { name: nameOf(row), label: "", style: row.style },
        ...(row.runs[0] ? { ratio: ratioOf(row.runs[0]) } : {}),
      })),
    );
  }

  /** Show the page of the list, and return its rows. */
  function draw() {
    const rows = rowsOf(page, wanted.group);
    const chosen = columnsOf(wanted, page.settings);
    const { total, varied_settings: varied } = page;
    const isEmpty = total === 0;
    curves.element.hidden = region.hidden = counts.hidden = isEmpty;
    nothing.hidden = !isEmpty;
    const isFiltered = FILTERS.some((name) => wanted.filters[name]);
    nothing.replaceChildren(
      isFiltered ? h("p", {}, "No run is found. ", h("a", { href: "#/" }, "Show all runs")) : h("p", {}, "There are no runs yet. Train one here, or by ", h("code", {}, "mt train"), "."),
      ...(isFiltered ? [] : [h("p", {}, h("a", { class: "button", href: "#/train" }, "New run"), " ", h("a", { href: "#/corpora" }, "Add a corpus"))]),
    );
    about.replaceChildren(live(() => `${counted(total, "run")} (a group over seeds counts as one); losses in ${unit()} per token`));
    lost.replaceChildren(unreadableList(page.unreadable));
    const last = Math.max(1, Math.ceil(total / PAGE_ROWS));
    const step = (/** @type {string} */ name, /** @type {number} */ to) =>
      to >= 1 && to <= last ? h("a", { href: addressOf({ ...wanted, page: to }) }, name) : null;
    pages.hidden = last === 1;
    pages.replaceChildren(...[step("Previous", wanted.page - 1), h("span", {}, `Page ${wanted.page} of ${last}`), step("Next", wanted.page + 1)].filter((one) => one !== null));
    names.replaceChildren(...varied.map((name) => h("option", { value: `${name}=` })));
    const settings = [...new Set([...varied, ...wanted.columns.filter((id) => !FIELDS.includes(id)), ...(wanted.group ? [wanted.group] : [])])];
    offer(group, ["", ...settings], "seeds only", wanted.group);
    const boxes = [...COLUMNS, ...settings.map((id) => ({ id, title: id }))].map(({ id, title }) => h("label", {}, columnBox(id), title));
    renewKept(columns, h("div", { class: "columns", role: "group", "aria-label": "Columns" }, ...boxes));
    renewKept(table, h("table", { class: "runs" }, h("caption", { class: "unseen" }, caption), headOf(chosen), bodyOf(rows, chosen)));
    drawPicked();
    return rows;
  }

  /** @param {string} id */
  function columnBox(id) {
    const box = h("input", {
      type: "checkbox",
      value: id,
      checked: wanted.columns.includes(id),
      onchange: () => {
        box.toggleAttribute("checked", box.checked);
        change(() => (wanted.columns = box.checked ? [...wanted.columns, id] : wanted.columns.filter((other) => other !== id)));
      },
    });
    return box;
  }

  /** @param {Column[]} chosen */
  function headOf(chosen) {
    const cells = [{ id: "label", title: "Run" }, ...chosen].map(({ id, title }) => {
      const order = id !== (wanted.group || wanted.sort) ? false : wanted.isDescending && !wanted.group ? "descending" : "ascending";
      return h("th", { scope: "col", "data-column": id, "aria-sort": order }, h("button", { type: "button", onclick: () => sort(id) }, title));
    });
    return h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "unseen" }, "Compare")), ...cells));
  }

  /**
   * @param {Row[]} rows
   * @param {Column[]} chosen
   */
  function bodyOf(rows, chosen) {
    return h("tbody", {}, ...rows.flatMap((row, at) => {
      const isFirst = wanted.group && row.value !== rows[at - 1]?.value;
      const members = row.isGroup && opened.has(row.name) ? row.runs : [];
      const totals = isFirst ? page.totals.find(({ value }) => value === row.value) : undefined;
      return [
        ...(totals ? [totalsOf(totals, chosen)] : []),
        rowOf(row, chosen),
        ...members.map((run) => lineOf(run.run_id, h("span", {}, runLink(run)), run.label ?? run.run_id, "member", chosen.map((column) => column.cell(run)))),
      ];
    }));
  }

  /**
   * @param {ValueTotals} totals
   * @param {Column[]} chosen
   */
  function totalsOf(totals, chosen) {
    const title = h("span", {}, h("b", {}, `${wanted.group} ${totals.value || "–"}`), h("small", {}, counted(totals.n_runs, "run")));
    return h("tr", { class: "value" }, h("td"), h("th", { scope: "row" }, title), ...chosen.map((column) => h("td", {}, column.totalCell(totals))));
  }

  /**
   * @param {Row} row
   * @param {Column[]} chosen
   */
  function rowOf(row, chosen) {
    const [first] = row.runs;
    const swatch = curveButton(nameOf(row), row.style, hidden.has(row.name), () => {
      if (!hidden.delete(row.name)) hidden.add(row.name);
      void drawCurves(draw());
    });
    if (!row.isGroup) return lineOf(row.name, h("span", {}, swatch, ...row.runs.map(runLink)), nameOf(row), "", chosen.map((column) => (first ? column.cell(first) : "")));
    const isOpen = opened.has(row.name);
    const turn = () => {
      if (!opened.delete(row.name)) opened.add(row.name);
      draw();
    };
    const toggle = h("button", { type: "button", "aria-expanded": String(isOpen), "aria-label": `${row.runs.length} runs of ${nameOf(row)}`, onclick: turn }, `${isOpen ? "▾" : "▸"} ${row.runs.length} runs`);
    const link = h("a", { href: `#/groups/${row.name}`, title: nameOf(row) }, bdi(nameOf(row)));
    return lineOf(`${GROUP_MARK}${row.name}`, h("span", {}, swatch, link, toggle), `the group ${nameOf(row)}`, "", chosen.map((column) => column.groupCell(row.runs)));
  }

  /**
   * @param {string} id what is compared
   * @param {Node} title
   * @param {string} name
   * @param {string} style
   * @param {ReturnType<Column["cell"]>[]} cells
   */
  function lineOf(id, title, name, style, cells) {
    const box = h("input", { type: "checkbox", value: id, checked: picked.has(id), "aria-label": `Compare ${name}`, onchange: () => pick(box) });
    return h("tr", { class: style }, h("td", {}, box), h("th", { scope: "row" }, title), ...cells.map((cell) => h("td", {}, cell)));
  }

  /** @param {HTMLInputElement} box */
  function pick(box) {
    if (box.checked) picked.add(box.value);
    else picked.delete(box.value);
    box.toggleAttribute("checked", box.checked);
    drawPicked();
    announce(compare.textContent ?? "");
  }

  function drawPicked() {
    compare.disabled = picked.size < 2;
    compare.textContent = picked.size < 2 ? `Compare: pick 2 to ${TABLES.max_compared} runs` : `Compare ${picked.size} runs`;
    for (const box of table.querySelectorAll("input")) box.disabled = picked.size >= TABLES.max_compared && !box.checked;
  }

  /** @param {string} column */
  function sort(column) {
    change(() => {
      wanted.isDescending = column === wanted.sort ? !wanted.isDescending : DESCENDING.some(({ name }) => name === column);
      wanted.sort = column;
      wanted.group = "";
    });
  }

  /** @param {() => void} action changes what is wanted, one step forward from this address */
  function change(action) {
    action();
    wanted.page = 1;
    remember(true);
    readAnew();
  }

  /** @param {boolean} isStep the address before is one step back */
  function remember(isStep) {
    if (isStep) history.pushState(null, "", addressOf(wanted));
    else history.replaceState(null, "", addressOf(wanted));
  }

  drawPicked();
  repeat(() => isOnHold || load(), signal);
  await load();
}

/**
 * Return what an address asks for.
 * @param {URLSearchParams} query
 * @returns {Wanted}
 */
function wantedOf(query) {
  return {
    filters: Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""])),
    sort: query.get("sort") || USUAL_SORT,
    isDescending: query.get("order") !== "asc",
    columns: query.get("columns")?.split(",").filter(Boolean) ?? usualColumns(),
    group: query.get("group") ?? "",
    page: Math.max(1, Math.trunc(Number(query.get("page"))) || 1),
  };
}

/** @param {Wanted} wanted */
function addressOf({ filters, sort, isDescending, columns, group, page }) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filters)) if (value) query.set(name, value);
  if (sort !== USUAL_SORT) query.set("sort", sort);
  if (!isDescending) query.set("order", "asc");
  if (columns.join() !== usualColumns().join()) query.set("columns", columns.join());
  if (group) query.set("group", group);
  if (page > 1) query.set("page", String(page));
  const text = query.toString().replaceAll("%2C", ",");
  return text ? `#/?${text}` : "#/";
}

/**
 * Return the columns that are shown; the value of a setting is a link to the runs that have it.
 * @param {Wanted} wanted
 * @param {RunPage["settings"]} settings
 */
function columnsOf(wanted, settings) {
  const chosen = COLUMNS.filter(({ id }) => wanted.columns.includes(id));
  const named = wanted.columns.filter((id) => !FIELDS.includes(id));
  const withCondition = (/** @type {string} */ condition) => {
    const where = wanted.filters["where"]?.split(",").map((one) => one.trim()).filter((one) => one && one !== condition) ?? [];
    return addressOf({ ...wanted, page: 1, filters: { ...wanted.filters, where: [...where, condition].join() } });
  };
  return [...chosen, ...named.map((id) => settingColumn(id, settings, withCondition))];
}

function usualColumns() {
  return COLUMNS.filter((column) => column.isUsual).map((column) => column.id);
}

function numberNames() {
  return FIELDS.filter((id) => id.endsWith("loss") || id.endsWith("bits_per_char") || id === "progress" || id === "params").join(", ");
}

/**
 * Return the rows of a page: the runs of a group over seeds stand one after another. Runs with one value of the setting
 * that groups them have one colour.
 * @param {RunPage} page
 * @param {string} group
 */
function rowsOf({ runs, settings }, group) {
  /** @type {Map<string, Row>} */
  const rows = new Map();
  const values = [...new Set(runs.map(({ run_id }) => settings[run_id]?.[group] ?? ""))];
  for (const run of runs) {
    const name = run.group?.group_id ?? run.run_id;
    const value = settings[run.run_id]?.[group] ?? "";
    const at = group ? values.indexOf(value) : rows.size;
    const style = `run${at % COLOURS}${DASHES[Math.floor(at / COLOURS)] ?? ""}`;
    const row = rows.get(name) ?? { name, isGroup: run.group !== null, runs: [], value, style };
    rows.set(name, row);
    row.runs.push(run);
  }
  return [...rows.values()];
}

/** @param {Row} row */
function nameOf({ name, runs }) {
  return runs[0]?.label ?? name;
}

/**
 * Fill a select, unless its reader has it open.
 * @param {HTMLElement} field
 * @param {string[]} values
 * @param {string} none what stands for no value
 * @param {string} [chosen]
 */
function offer(field, values, none, chosen = "") {
  const select = field.querySelector("select");
  if (!select || select === document.activeElement) return;
  select.replaceChildren(...values.map((value) => h("option", { value }, value || none)));
  select.value = chosen;
}

/**
 * Renew a part of the page; a control that is made anew keeps the focus.
 * @param {HTMLElement} old
 * @param {HTMLElement} made
 */
function renewKept(old, made) {
  const keyOf = (/** @type {Element | null} */ one) => one?.getAttribute("href") ?? one?.getAttribute("aria-label") ?? one?.textContent;
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const wantedCount = made.children.length;
  [...made.children].forEach((child, at) => {
    const before = old.children[at];
    if (before) renew(before, child);
    else old.append(child);
  });
  while (old.children.length > wantedCount) old.lastElementChild?.remove();
  if (focused === null || focused.isConnected) return;
  const again = [...old.querySelectorAll("a, button, input")].find((one) => keyOf(one) === keyOf(focused));
  if (again instanceof HTMLElement) again.focus({ preventScroll: true });
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
