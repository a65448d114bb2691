/** A table of any length: some hundred rows at a time, sorted by any column, and all of them as a CSV file. */

import { announce, h, table } from "./elements.js";
import { csvText, saveFile } from "./files.js";

/** @typedef {Node | string | number | null} Child */
/**
 * A column: the value that is sorted and written to the file, and what is shown of it.
 * @template Row
 * @typedef {{title: string, value: (row: Row) => string | number | null, show?: (row: Row) => Child}} Column
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
  let [sorted, sortedBy, isDescending, start] = [rows, -1, false, 0];
  const sort = (/** @type {number} */ column) => {
    isDescending = sortedBy === column && !isDescending;
    sortedBy = column;
    sorted = inOrder(rows, columns[column]?.value ?? (() => null), isDescending);
    start = 0;
    draw();
    announce(`Sorted by ${columns[column]?.title}, ${isDescending ? "descending" : "ascending"}.`);
  };
  const turn = (/** @type {number} */ by) => {
    start = Math.max(0, Math.min(start + by, sorted.length - 1));
    draw();
  };
  const draw = () => {
    const shown = sorted.slice(start, start + PAGE_ROWS);
    const made = table(
      caption,
      columns.map(({ title }) => title),
      shown.map((row) => columns.map(({ value, show }) => (show ?? value)(row) ?? "–")),
    );
    made.querySelectorAll("thead th").forEach((head, column) => {
      const isSorted = column === sortedBy;
      if (isSorted) head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      const sign = isSorted ? (isDescending ? " ▼" : " ▲") : "";
      head.replaceChildren(
        h("button", { type: "button", class: "sort", onclick: () => sort(column) }, `${head.textContent}${sign}`),
      );
    });
    const focused = [...place.querySelectorAll("button")].indexOf(
      /** @type {HTMLButtonElement} */ (document.activeElement),
    );
    place.replaceChildren(made, ...pager(start, shown.length, sorted.length, turn));
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
 * Return rows in the order of a value; those without one are last, and equal ones keep their order.
 * @template Row
 * @param {Row[]} rows
 * @param {(row: Row) => string | number | null} value
 * @param {boolean} isDescending
 */
export function inOrder(rows, value, isDescending) {
  const sign = isDescending ? -1 : 1;
  const keyed = rows.map((row) => ({ row, key: value(row) }));
  keyed.sort(({ key: one }, { key: two }) => {
    if (one === null || two === null) return Number(one === null) - Number(two === null);
    return one < two ? -sign : one > two ? sign : 0;
  });
  return keyed.map(({ row }) => row);
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
