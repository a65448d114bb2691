/** The tree of an experiment's languages, drawn from its joins. */

import { chartTools } from "./chart_files.js";
import { h, scrolling, svg } from "./elements.js";
import { csvText } from "./files.js";
import { loss } from "./numbers.js";
import { ticks, tickText } from "./scale.js";
import { inUnit, onUnitChange, unit } from "./units.js";

/** @import { TreeJoin } from "./records.js" */

const WIDTH = 640;
const ROW = 26;
const MARGIN = { top: 8, right: 20, bottom: 44 };
/** Pixels of a letter of a label, at most. */
const LETTER = 8;
const MAX_LABEL = 240;

/**
 * Draw the tree with its numbers as files; the first join is the nearest one.
 * @param {string} title
 * @param {TreeJoin[]} joins
 * @param {(language: string) => string} labelOf
 */
export function languageTree(title, joins, labelOf) {
  let image = drawn(title, joins, labelOf);
  const frame = scrolling(title, image);
  onUnitChange(frame, () => {
    image = drawn(title, joins, labelOf);
    frame.replaceChildren(image);
  });
  const csv = () => csvText([["left", "right", "height (nats per character)"], ...joins.map(({ left, right, height }) => [left.join(" "), right.join(" "), height])]);
  return h("div", { class: "tree" }, frame, h("div", { class: "bar tools" }, ...chartTools(title, () => ({ title, image, csv }))));
}

/**
 * @param {string} title
 * @param {TreeJoin[]} joins
 * @param {(language: string) => string} labelOf
 */
function drawn(title, joins, labelOf) {
  const leaves = leafOrder(joins);
  const labels = leaves.map(labelOf);
  const left = Math.min(MAX_LABEL, 16 + LETTER * Math.max(...labels.map((label) => label.length)));
  const [right, bottom] = [left + WIDTH, MARGIN.top + ROW * leaves.length];
  const heights = joins.map(({ height }) => inUnit(height));
  const [low, high] = [Math.min(0, ...heights), Math.max(0, ...heights) || 1];
  const x = (/** @type {number} */ height) => left + ((height - low) / (high - low)) * WIDTH;
  /** @type {Map<string, {x: number, y: number}>} where the line of a cluster begins */
  const places = new Map(leaves.map((leaf, row) => [leaf, { x: x(0), y: MARGIN.top + ROW * (row + 0.5) }]));
  const brackets = joins.map((join) => {
    const [one, two] = [join.left, join.right].map((cluster) => places.get(nameOf(cluster)) ?? { x: left, y: 0 });
    const place = { x: x(inUnit(join.height)), y: ((one?.y ?? 0) + (two?.y ?? 0)) / 2 };
    places.set(nameOf([...join.left, ...join.right]), place);
    return { line: `M${one?.x} ${one?.y}H${place.x}V${two?.y}H${two?.x}`, place, height: join.height };
  });
  const size = { width: right + MARGIN.right, height: bottom + MARGIN.bottom };
  const names = joins.map((join) => `${join.left.join(" ")} and ${join.right.join(" ")} at ${loss(join.height)}`);
  return svg(
    "svg",
    { role: "img", "aria-label": `${title}: ${names.join("; ")}`, viewBox: `0 0 ${size.width} ${size.height}`, ...size },
    ...ticks(low, high, 6).flatMap((tick) => [
      svg("path", { class: "grid", d: `M${x(tick)} ${MARGIN.top}V${bottom}` }),
      svg("text", { x: x(tick), y: bottom + 18, "text-anchor": "middle" }, tickText(tick)),
    ]),
    svg("text", { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle" }, `mean symmetric distance at which clusters join, ${unit()} per character`),
    ...labels.map((label, row) =>
      svg("text", { class: "leaf", x: left - 8, y: MARGIN.top + ROW * (row + 0.5) + 4, "text-anchor": "end" }, label),
    ),
    ...brackets.map(({ line }) => svg("path", { class: "bracket", d: line })),
    ...brackets.map(({ place, height }) =>
      svg("text", { class: "over", x: place.x - 4, y: place.y + 4, "text-anchor": "end" }, loss(height)),
    ),
  );
}

/**
 * Return the languages in an order in which no lines of the tree cross.
 * @param {TreeJoin[]} joins
 */
function leafOrder(joins) {
  /** @type {Map<string, string[]>} */
  const orders = new Map();
  const orderOf = (/** @type {string[]} */ cluster) => orders.get(nameOf(cluster)) ?? cluster;
  for (const { left, right } of joins) orders.set(nameOf([...left, ...right]), [...orderOf(left), ...orderOf(right)]);
  const last = joins.at(-1);
  return last ? orderOf([...last.left, ...last.right]) : [];
}

/** @param {string[]} cluster */
function nameOf(cluster) {
  return [...cluster].sort().join(" ");
}
