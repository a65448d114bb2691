/** A table of any length: some hundred rows at a time, sorted by any column, and all of them as a CSV file. */

import { announce, h, table } from "./elements.js";
import { csvText, saveFile } from "./files.js";

/** @import { Child } from "./elements.js" */
/**
 * A column: the value that is written to the file and sorted, if `order` gives no other one, and what is shown of it; the
 * file has its title.
 * @template Row
 * @typedef {{title: string, shownTitle?: () => string, value: (row: Row) => string | number | null, show?: (row: Row) => Child,
 *   order?: (row: Row) => string | number | null}} Column
 */

const PAGE_ROWS = 200;

/**
 * @template Row
 * @param {string} caption
 * @param {Column<Row>[]} columns the first one is the header of its row
 * @param {Row[]} rows
 * @param {string} fileName
 * @returns {HTMLElement}
 */
export function unitTable(caption, columns, rows, fileName) {
  const place = h("div");
  const titles = columns.map(({ title, shownTitle }) => shownTitle ?? (() => title));
  let rowsAt = (/** @type {number} */ from, /** @type {number} */ end) => rows.slice(from, end);
  let [sortedBy, isDescending, start] = [-1, false, 0];
  const sort = (/** @type {number} */ column) => {
    isDescending = sortedBy === column && !isDescending;
    sortedBy = column;
    rowsAt = inOrder(rows, columns[column]?.order ?? columns[column]?.value ?? (() => null), isDescending);
    start = 0;
    draw();
    announce(`Sorted by ${titles[column]?.()}, ${isDescending ? "descending" : "ascending"}.`);
  };
  const turn = (/** @type {number} */ by) => {
    start = Math.max(0, Math.min(start + by, rows.length - 1));
    draw();
  };
  const draw = () => {
    const shown = rowsAt(start, Math.min(start + PAGE_ROWS, rows.length));
    const made = table(
      caption,
      titles,
      shown.map((row) => columns.map(({ value, show }) => (show ?? value)(row) ?? "–")),
    );
    made.querySelectorAll("thead th").forEach((head, column) => {
      const isSorted = column === sortedBy;
      if (isSorted) head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      const sign = isSorted ? (isDescending ? " ▼" : " ▲") : "";
      head.replaceChildren(
        h("button", { type: "button", class: "sort", onclick: () => sort(column) }, titles[column] ?? "", sign),
      );
    });
    const focused = [...place.querySelectorAll("button")].indexOf(
      /** @type {HTMLButtonElement} */ (document.activeElement),
    );
    place.replaceChildren(made, ...pager(start, shown.length, rows.length, turn));
    place.querySelectorAll("button")[focused]?.focus();
  };
  const save = h(
    "button",
    { type: "button", onclick: () => saveFile(fileName, new Blob([csv(columns, rows)], { type: "text/csv" })) },
    "Download as CSV",
  );
  const details = h(
    "details",
    { ontoggle: () => details.open && !place.hasChildNodes() && draw() },
    h("summary", {}, `${caption} as a table`),
    save,
    place,
  );
  return details;
}

/**
 * Sort rows by a value, and return a function for those from one place in the order to another.
 *
 * Rows without a value are last, and equal ones keep their order.
 * @template Row
 * @param {Row[]} rows
 * @param {(row: Row) => string | number | null} value
 * @param {boolean} isDescending
 * @returns {(start: number, end: number) => Row[]}
 */
export function inOrder(rows, value, isDescending) {
  const values = rows.map(value);
  const texts = [...new Set(values.filter((one) => typeof one === "string"))].sort();
  const ranks = new Map(texts.map((text, rank) => [text, rank]));
  const sign = isDescending ? -1 : 1;
  const keys = Float64Array.from(values, (one) =>
    one === null ? Infinity : sign * (typeof one === "string" ? (ranks.get(one) ?? 0) : one),
  );
  const sorted = keys.slice().sort(); // numbers alone are sorted several times as fast as rows
  const keyOf = (/** @type {number} */ index) => keys[index] ?? 0;
  return (start, end) => {
    const [low = 0, high = 0] = [sorted[start], sorted[end - 1]];
    const found = [...keys.keys()].filter((index) => keyOf(index) >= low && keyOf(index) <= high);
    found.sort((one, two) => keyOf(one) - keyOf(two));
    const before = start - sorted.indexOf(low);
    return found.slice(before, before + end - start).flatMap((index) => rows.slice(index, index + 1));
  };
}

/**
 * Return rows as CSV with a line of titles.
 * @template Row
 * @param {Column<Row>[]} columns
 * @param {Row[]} rows
 */
export function csv(columns, rows) {
  return csvText([columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ value }) => value(row)))]);
}

/**
 * @param {number} start
 * @param {number} shown
 * @param {number} count
 * @param {(by: number) => void} turn
 */
function pager(start, shown, count, turn) {
  if (shown === count) return [];
  const position = (/** @type {number} */ number) => number.toLocaleString("en");
  const button = (/** @type {string} */ name, /** @type {number} */ by, /** @type {boolean} */ isPossible) =>
    h(
      "button",
      { type: "button", "aria-disabled": !isPossible && "true", onclick: () => isPossible && turn(by) },
      name,
    );
  return [
    h(
      "p",
      { class: "bar" },
      button("Rows before", -PAGE_ROWS, start > 0),
      `Rows ${position(start + 1)}–${position(start + shown)} of ${position(count)}`,
      button("Rows after", PAGE_ROWS, start + shown < count),
    ),
  ];
}
