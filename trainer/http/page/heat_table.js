/** A table whose cells are coloured by their numbers, and say more of them on hover and focus. */

import { h, live, scrolling } from "./elements.js";

/** @import { LiveText } from "./elements.js" */
/** @typedef {{text: LiveText, share: number | null, details: () => string, isOwn?: boolean}} HeatCell `share` of the scale, 0 to 1 */

const SHADES = 8;

/**
 * Arrow keys, Home and End move between the cells.
 * @param {LiveText} caption
 * @param {string[]} columns the first one names the rows
 * @param {{title: Node | string, cells: HeatCell[]}[]} rows
 * @param {LiveText} scale what the lowest and the highest colour mean
 */
export function heatTable(caption, columns, rows, scale) {
  const details = h(
    "p",
    { class: "details cell-details" },
    "Point at a cell, or move to it with the keyboard, for its interval.",
  );
  const cells = rows.map(({ cells }) => cells.map((cell) => h("td", attributesOf(cell), cell.text)));
  const at = new Map(cells.flatMap((row, y) => row.map((cell, x) => [cell, { x, y }])));
  const tell = (/** @type {Event} */ event) => {
    const cell = /** @type {Element} */ (event.target).closest("td");
    if (cell) details.replaceChildren(live(() => cell.ariaLabel ?? ""));
  };
  const body = h(
    "tbody",
    { onmouseover: tell, onfocusin: tell, onkeydown: (event) => move(/** @type {KeyboardEvent} */ (event)) },
    ...rows.map(({ title }, y) => h("tr", {}, h("th", { scope: "row" }, title), ...(cells[y] ?? []))),
  );
  cells[0]?.[0]?.setAttribute("tabindex", "0");

  /** @param {KeyboardEvent} event */
  function move(event) {
    const from = /** @type {HTMLTableCellElement} */ (event.target);
    const place = at.get(from);
    if (!place) return;
    const { x, y } = place;
    const row = cells[y] ?? [];
    const next = {
      ArrowLeft: row[x - 1],
      ArrowRight: row[x + 1],
      ArrowUp: cells[y - 1]?.[x],
      ArrowDown: cells[y + 1]?.[x],
      Home: row[0],
      End: row.at(-1),
    }[event.key];
    if (!next) return;
    event.preventDefault();
    from.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }

  return h(
    "div",
    {},
    scrolling(
      caption,
      h(
        "table",
        { class: "heat-table", role: "grid" },
        h("caption", { class: "unseen" }, caption),
        h("thead", {}, h("tr", {}, ...columns.map((name) => (name ? h("th", { scope: "col" }, name) : h("td"))))),
        body,
      ),
    ),
    h(
      "p",
      { class: "shades" },
      ...Array.from({ length: SHADES }, (_, shade) => h("span", { class: `h${shade}` }, " ")),
      " ",
      scale,
    ),
    details,
  );
}

/** @param {HeatCell} cell */
function attributesOf({ share, details, isOwn }) {
  const shade = share === null ? "" : `h${Math.min(SHADES - 1, Math.floor(Math.min(1, Math.max(0, share)) * SHADES))}`;
  return { class: `${shade}${isOwn ? " own" : ""}`, tabindex: -1, "aria-label": details };
}
