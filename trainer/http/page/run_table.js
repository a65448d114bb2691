/** The table of runs: of its rows only those in view and some around them are read and shown. */

import { bdi, h } from "./elements.js";
import { COLUMNS, runLink } from "./run_columns.js";
import { unit } from "./units.js";

/** @import { Column, Row } from "./run_columns.js" */
/** @import { LiveText } from "./elements.js" */
/** @import { RunStatus } from "./records.js" */

/** @typedef {{rows: Row[], total: number}} Part rows of the list from some place on, and how many the list has */
/** @typedef {{row: Row | undefined, turn: number}} Known a row that was read in a turn; undefined if it cannot be read */
/** @typedef {{key: string, isMember: boolean, cells: (Node | LiveText)[]}} Line */

const CAPTION = () => `Runs; losses in ${unit()} per token`;
const ROW_REM = 3;
const MARGIN_ROWS = 8;
const LARGEST_PART = 200;
const PICK_REM = 3;
const NAME_REM = matchMedia("(max-width: 40rem)").matches ? 13 : 16;

export class RunTable {
  /** @type {Map<number, Known>} */
  #known = new Map();
  /** @type {Map<string, HTMLTableRowElement>} */
  #shown = new Map();
  /** The number of the last refresh: rows that were read before it are read again when they come into view. */
  #turn = 0;
  #readTurn = 0;
  #total = 0;
  #isNew = true;
  #rowHeight = ROW_REM * parseFloat(getComputedStyle(document.documentElement).fontSize);
  #reading = new AbortController();
  /** @type {Promise<void> | null} */
  #loading = null;
  #isDrawing = false;
  /** @type {Column[]} */
  #columns = [];
  /** @type {Set<string>} the groups whose runs are shown */
  #opened = new Set();
  /** @type {{index: number, count: number}[]} the places of the opened groups in the list, and how many runs they have */
  #openedAt = [];
  #top = 0;

  /** Says what the list has. */
  about = h("p", { class: "quiet" });
  #head = h("tr", { "aria-rowindex": 1 });
  #widths = h("colgroup");
  #above = space();
  #body = h("tbody");
  #below = space();
  #table = h(
    "table",
    { class: "runs" },
    h("caption", { class: "unseen" }, CAPTION),
    this.#widths,
    h("thead", {}, this.#head),
    this.#above,
    this.#body,
    this.#below,
  );
  #region = h(
    "div",
    { class: "scroll rows", role: "region", tabindex: 0, "aria-label": CAPTION },
    this.#table,
  );
  #hint = h("p", { class: "hint quiet", hidden: true }, "Scroll sideways for more columns →");

  /**
   * @param {object} options
   * @param {(offset: number, limit: number, signal: AbortSignal) => Promise<Part>} options.read
   * @param {(row: Row | RunStatus) => Node} options.pick makes the control that picks a run or group
   * @param {(column: string) => void} options.sort
   * @param {() => void} options.changed called when other rows are shown
   * @param {(error: unknown) => void} options.failed
   * @param {AbortSignal} signal
   */
  constructor(options, signal) {
    this.options = options;
    this.element = h("div", {}, h("div", { class: "bar above" }, this.about, this.#hint), this.#region);
    this.#region.addEventListener("scroll", () => this.#drawSoon());
    const resized = new ResizeObserver(() => this.#drawSoon());
    resized.observe(this.#region);
    signal.addEventListener("abort", () => {
      this.#reading.abort();
      resized.disconnect();
    });
  }

  /** The number of rows of the whole list. */
  get total() {
    return this.#total;
  }

  /** The distance that the list is scrolled, in pixels. */
  get top() {
    return this.#region.scrollTop;
  }

  /**
   * Show these columns, sorted by one of them.
   * @param {string[]} ids
   * @param {string} sort
   * @param {boolean} isDescending
   */
  arrange(ids, sort, isDescending) {
    const same = ids.join() === this.#columns.map((column) => column.id).join();
    if (!same) {
      this.#columns = COLUMNS.filter((column) => ids.includes(column.id));
      const widths = [PICK_REM, NAME_REM, ...this.#columns.map((column) => column.width)];
      this.#widths.replaceChildren(
        ...widths.map((width) => {
          const col = h("col");
          col.style.width = `${width}rem`;
          return col;
        }),
      );
      this.#table.style.width = `${widths.reduce((sum, width) => sum + width, 0)}rem`;
      const titles = [{ id: "label", title: "Run" }, ...this.#columns];
      this.#head.replaceChildren(
        h("th", { scope: "col" }, h("span", { class: "unseen" }, "Compare")),
        ...titles.map(({ id, title }) =>
          h(
            "th",
            { scope: "col", "data-column": id },
            h("button", { type: "button", onclick: () => this.options.sort(id) }, title),
          ),
        ),
      );
      for (const space of [this.#above, this.#below]) {
        space.firstElementChild?.replaceChildren(h("td", { colspan: widths.length }));
      }
      this.#body.replaceChildren();
      this.#shown.clear();
      this.#drawSoon();
    }
    for (const cell of this.#head.children) {
      if (cell.getAttribute("data-column") === sort) {
        cell.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      } else cell.removeAttribute("aria-sort");
    }
  }

  /**
   * Read the list anew from its first row on; what is shown stays until then.
   * @param {number} top distance that the list is scrolled then, in pixels
   */
  async reset(top = 0) {
    this.#reading.abort();
    this.#reading = new AbortController();
    this.#loading = null;
    this.#isNew = true;
    this.#top = top;
    this.#turn += 1;
    await this.#load();
  }

  /** Read again what is in view. */
  async refresh() {
    this.#turn += 1;
    await this.#load();
  }

  /**
   * Read what is missing in view, one part at a time.
   * @returns {Promise<void>}
   */
  #load() {
    if (this.#loading) return this.#loading;
    const loading = this.#readMissing(this.#reading.signal).finally(() => {
      if (this.#loading === loading) this.#loading = null;
    });
    this.#loading = loading;
    return loading;
  }

  /** @param {AbortSignal} signal */
  async #readMissing(signal) {
    try {
      for (let missing = this.#missing(); missing; missing = this.#missing()) {
        const [first, end] = missing;
        const part = await this.options.read(first, end - first, signal);
        if (signal.aborted) return;
        this.#take(part, first, end);
      }
    } catch (error) {
      if (!signal.aborted) this.options.failed(error);
    }
  }

  /**
   * Return the first row in view that is not up to date, and the end of those; null if all are.
   * @returns {[number, number] | null}
   */
  #missing() {
    const top = Math.floor((this.#isNew ? this.#top : this.#region.scrollTop) / this.#rowHeight);
    const first = Math.max(0, this.#rowAt(top - MARGIN_ROWS).row);
    const inView = Math.ceil(this.#viewHeight() / this.#rowHeight);
    const rows = inView + 2 * MARGIN_ROWS;
    // what is in view comes first
    if (this.#isNew) return [first, first + Math.min(inView, LARGEST_PART)];
    if (this.#total === 0) return this.#readTurn === this.#turn ? null : [0, rows];
    const indexes = Array.from({ length: Math.max(0, Math.min(rows, this.#total - first)) }, (_, index) => first + index);
    const seen = this.#rowAt(top).row;
    const unknown = indexes.filter((index) => index >= seen && index <= seen + inView && !this.#known.has(index));
    const old = unknown.length ? unknown : indexes.filter((index) => this.#known.get(index)?.turn !== this.#turn);
    const [start] = old;
    return start === undefined ? null : [start, Math.min((old.at(-1) ?? start) + 1, start + LARGEST_PART)];
  }

  /**
   * Take rows from the server; where other rows have come or gone, those in view stay in their place.
   * @param {Part} part
   * @param {number} first
   * @param {number} end
   */
  #take(part, first, end) {
    const isNew = this.#isNew;
    const { row: before } = this.#rowAt(Math.floor(this.#region.scrollTop / this.#rowHeight));
    const lineBefore = this.#lineOf(before);
    const anchor = this.#known.get(before)?.row?.name;
    const hasMoved =
      part.total !== this.#total ||
      part.rows.some((row, index) => (this.#known.get(first + index)?.row?.name ?? row.name) !== row.name);
    if (isNew) this.#known.clear();
    if (hasMoved) for (const [index, { turn }] of this.#known) if (turn !== this.#turn) this.#known.delete(index);
    for (let index = first; index < end; index++) {
      this.#known.set(index, { row: part.rows[index - first], turn: this.#turn });
    }
    this.#total = part.total;
    this.#readTurn = this.#turn;
    this.#isNew = false;
    this.#placeOpened();
    if (isNew) this.#region.scrollTop = 0;
    this.#draw();
    if (isNew) this.#region.scrollTop = this.#top;
    else if (hasMoved && this.#region.scrollTop > 0 && anchor !== undefined) {
      const after = [...this.#known].find(([, { row }]) => row?.name === anchor)?.[0] ?? before;
      this.#region.scrollTop += (this.#lineOf(after) - lineBefore) * this.#rowHeight;
    }
    if (this.#region.scrollTop > 0) this.#draw();
    this.options.changed();
  }

  #drawSoon() {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      this.#draw();
      if (!this.#isNew) this.#load();
    });
  }

  #draw() {
    const lines = this.#total + this.#openedAt.reduce((sum, { count }) => sum + count, 0);
    const top = this.#region.scrollTop / this.#rowHeight;
    const end = Math.min(lines, Math.ceil(top + this.#viewHeight() / this.#rowHeight) + MARGIN_ROWS);
    const first = Math.min(Math.max(0, Math.floor(top) - MARGIN_ROWS), end);
    const view = Array.from({ length: end - first }, (_, index) => this.#line(first + index));
    const keys = new Set(view.map((line) => line.key));
    for (const [key, element] of this.#shown) {
      if (keys.has(key)) continue;
      // the keyboard goes on from the list
      if (element.contains(document.activeElement)) this.#region.focus({ preventScroll: true });
      element.remove();
      this.#shown.delete(key);
    }
    view.forEach(({ key, isMember, cells }, index) => {
      const element = this.#shown.get(key) ?? h("tr", isMember ? { class: "member" } : {});
      this.#shown.set(key, element);
      fill(element, cells);
      element.setAttribute("aria-rowindex", String(first + index + 2));
      // a row that stays in its place keeps the focus
      if (this.#body.children[index] !== element) this.#body.insertBefore(element, this.#body.children[index] ?? null);
    });
    this.#table.setAttribute("aria-rowcount", String(lines + 1));
    this.#above.style.height = `${first * this.#rowHeight}px`;
    this.#below.style.height = `${(lines - end) * this.#rowHeight}px`;
    this.#above.hidden = first === 0;
    this.#below.hidden = end === lines;
    const height = this.#body.firstElementChild?.getBoundingClientRect().height;
    if (height) this.#rowHeight = height;
    const { scrollWidth, clientWidth, scrollLeft } = this.#region;
    this.#hint.hidden = scrollWidth - clientWidth - scrollLeft < 2;
  }

  /**
   * @param {number} number
   * @returns {Line}
   */
  #line(number) {
    const { row: index, member } = this.#rowAt(number);
    const row = this.#known.get(index)?.row;
    const run = row?.runs[Math.max(member, 0)];
    if (!row || !run) return { key: `?${index}`, isMember: false, cells: ["", "…", ...this.#columns.map(() => "")] };
    if (!row.isGroup || member >= 0) {
      const cells = [this.options.pick(run), runLink(run), ...this.#columns.map((column) => column.cell(run))];
      return { key: run.run_id, isMember: row.isGroup, cells };
    }
    const isOpen = this.#opened.has(row.name);
    const toggle = h(
      "button",
      { type: "button", "aria-expanded": String(isOpen), onclick: () => this.#open(row.name) },
      `${isOpen ? "▾" : "▸"} ${row.runs.length} runs`,
    );
    const name = run.label ?? row.name;
    const link = h("a", { href: `#/groups/${row.name}`, title: name }, bdi(name));
    const cells = [this.options.pick(row), h("span", {}, link, toggle)];
    return {
      key: `group ${row.name}`,
      isMember: false,
      cells: [...cells, ...this.#columns.map((column) => column.groupCell(row.runs))],
    };
  }

  /** @param {string} name */
  #open(name) {
    if (!this.#opened.delete(name)) this.#opened.add(name);
    this.#placeOpened();
    this.#drawSoon();
  }

  #placeOpened() {
    this.#openedAt = [...this.#known]
      .flatMap(([index, { row }]) => (row && this.#opened.has(row.name) ? [{ index, count: row.runs.length }] : []))
      .sort((one, other) => one.index - other.index);
  }

  /**
   * Return the row of a line, and which run of an opened group it is; -1 for the row itself.
   * @param {number} line
   */
  #rowAt(line) {
    let row = line;
    for (const { index, count } of this.#openedAt) {
      if (row <= index) break;
      if (row <= index + count) return { row: index, member: row - index - 1 };
      row -= count;
    }
    return { row, member: -1 };
  }

  /** @param {number} row */
  #lineOf(row) {
    return this.#openedAt.reduce((line, { index, count }) => (index < row ? line + count : line), row);
  }

  #viewHeight() {
    return parseFloat(getComputedStyle(this.#region).maxHeight);
  }
}

/** Make a place for the rows that are not shown. */
function space() {
  return h("tbody", { class: "space", "aria-hidden": "true", hidden: true }, h("tr"));
}

/**
 * Put new cells into a row, but leave those alone that say the same as before, as one may have the focus.
 * @param {HTMLTableRowElement} row
 * @param {(Node | LiveText)[]} contents
 */
function fill(row, contents) {
  contents.forEach((content, index) => {
    const made = h(index === 1 ? "th" : "td", index === 1 ? { scope: "row" } : {}, content);
    const old = row.children[index];
    if (!old) row.append(made);
    else if (old.textContent !== made.textContent) {
      const focused = document.activeElement;
      const hadFocus = focused && old.contains(focused) ? focused.localName : "";
      old.replaceWith(made);
      const control = hadFocus ? made.querySelector(hadFocus) : null;
      if (control instanceof HTMLElement) control.focus({ preventScroll: true });
    }
  });
}
