/** A text as a list of coloured units; of a long text only the blocks in view have options. */

import { afterPaint } from "./after_paint.js";
import { h } from "./elements.js";
import { letterGroups, visible } from "./scored_text.js";
import { onUnitChange } from "./units.js";

/**
 * How units look: `kind` gives the classes, `label` what a screen reader says, `details` what stands below the map;
 * `join` gives the numbers of those that share a letter with its marks.
 * @template {Cell} Unit
 * @typedef {{kind: (unit: Unit) => string, label: (unit: Unit) => string,
 *   details: (unit: Unit) => (Node | string)[], join: (parts: Unit[]) => Partial<Unit>}} Look
 */
/**
 * A unit without text is shown by its name; `parts` are those of a letter with its marks.
 * @typedef {{text: string, name: string, before: string, parts?: Cell[]}} Cell
 */

const BLOCK_UNITS = 600;
const FEW_BLOCKS = 8;
/** Distance from the view in which blocks have options. */
const MARGIN = "300px 0px";

/**
 * Make the map of the lines of a text, and the place for the details of a unit.
 * @template {Cell} Unit
 * @param {string} name
 * @param {Unit[][]} pieces the units of each line
 * @param {Look<Unit>} look
 * @returns {{elements: HTMLElement[], repaint: () => void}} `repaint` gives the units in view their classes and labels anew
 */
export function heatMap(name, pieces, look) {
  const lines = pieces.map((line) => joinedLetters(line, look.join));
  const units = lines.flat();
  const details = h(
    "p",
    { class: "details", "aria-live": "polite" },
    "Point at a part of the text, or move through it with the arrow keys.",
  );
  const option = h("span", { role: "option", "aria-setsize": units.length });
  const blocks = blocksOf(lines).map((block) => new Block(block, look, option));
  let current = 0;
  const blockOf = (/** @type {number} */ index) => blocks.findLast((block) => block.first <= index);
  const select = (/** @type {number} */ index) => {
    const unit = units[index];
    const block = blockOf(index);
    if (!unit || !block) return;
    const before = blockOf(current)?.option(current);
    if (before) before.tabIndex = -1; // which leaves it the focus, if it is chosen again
    current = index;
    block.fill();
    const chosen = block.option(index);
    if (chosen) chosen.tabIndex = 0;
    details.replaceChildren(...look.details(unit));
    return chosen;
  };
  const onMark = (/** @type {Event} */ event) => {
    const index = indexOf(event);
    if (index !== null) select(index);
  };
  const onKey = (/** @type {Event} */ event) => {
    const here = indexOf(event);
    if (here === null || !(event instanceof KeyboardEvent) || !(event.target instanceof HTMLElement)) return;
    const forwards = getComputedStyle(event.target).direction === "rtl" ? -1 : 1;
    const goal = {
      ArrowRight: here + forwards,
      ArrowLeft: here - forwards,
      ArrowDown: here + 1,
      ArrowUp: here - 1,
      Home: 0,
      End: units.length - 1,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    select(goal)?.focus();
  };
  const listeners = { onfocusin: onMark, onmouseover: onMark, onkeydown: onKey };
  const names = { role: "listbox", "aria-label": name, "aria-orientation": "horizontal" };
  const kind = blocks.length > FEW_BLOCKS ? "heat long" : "heat";
  const map = h("div", { class: kind, ...names, ...listeners }, ...blocks.map((block) => block.element));
  const inView = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting, boundingClientRect } of entries) {
        const block = blocks[Number(/** @type {HTMLElement} */ (target).dataset.block)];
        if (!block) continue;
        block.isNear = isIntersecting;
        if (isIntersecting && boundingClientRect.bottom > 0 && boundingClientRect.top < innerHeight) block.fill();
        else if (isIntersecting) afterPaint(() => block.isNear && block.fill());
        else if (map.isConnected && block.isFilled && block !== blockOf(current)) block.empty();
      }
    },
    { rootMargin: MARGIN },
  );
  // blocks that were never in view take as much room as the first one, so that few others come into view with them
  const firstSize = new ResizeObserver(([entry]) => {
    for (const { element } of blocks) element.style.containIntrinsicHeight = `auto ${entry?.contentRect.height}px`;
  });
  if (blocks[0]) firstSize.observe(blocks[0].element);
  blocks.forEach((block, number) => {
    block.element.dataset.block = String(number);
    inView.observe(block.element);
  });
  blocks[0]?.fill();
  afterPaint(() => map.isConnected && blocks.forEach((block) => block.isFilled || block.empty())); // to be found
  const first = blocks[0]?.option(0);
  if (first) first.tabIndex = 0;
  const repaint = () => blocks.forEach((block) => block.repaint());
  onUnitChange(map, repaint);
  return { elements: [map, details], repaint };
}

/**
 * Return the units of a line; those of one letter with its marks are one.
 * @template {Cell} Unit
 * @param {Unit[]} line
 * @param {(parts: Unit[]) => Partial<Unit>} join
 */
export function joinedLetters(line, join) {
  return letterGroups(line).flatMap((parts) => {
    const [first] = parts;
    if (!first || parts.length === 1) return parts;
    const text = parts.map((part) => part.text).join("");
    return [/** @type {Unit} */ ({ ...first, text, name: text, before: first.before, parts, ...join(parts) })];
  });
}

/**
 * Return the sum of the numbers of some units.
 * @template Unit
 * @param {Unit[]} units
 * @param {(unit: Unit) => number} number
 */
export function sumOf(units, number) {
  return units.reduce((sum, unit) => sum + number(unit), 0);
}

/** @param {Event} event */
function indexOf({ target }) {
  const position = target instanceof HTMLElement ? target.getAttribute("aria-posinset") : null;
  return position === null ? null : Number(position) - 1;
}

/**
 * A part of a line: the number of the line, and that of its first unit.
 * @template {Cell} Unit
 * @typedef {{number: number, first: number, units: Unit[]}} Part
 */

/**
 * Cut lines into blocks of at most some hundred units; a longer line continues in the next block.
 * @template {Cell} Unit
 * @param {Unit[][]} lines
 * @returns {Part<Unit>[][]}
 */
export function blocksOf(lines) {
  /** @type {Part<Unit>[][]} */
  const blocks = [];
  let [first, room] = [0, 0];
  lines.forEach((line, row) => {
    for (let start = 0; start < line.length; start += BLOCK_UNITS) {
      const units = line.slice(start, start + BLOCK_UNITS);
      if (units.length > room) {
        blocks.push([]);
        room = BLOCK_UNITS;
      }
      blocks.at(-1)?.push({ number: row + 1, first, units });
      first += units.length;
      room -= units.length;
    }
  });
  return blocks;
}

/** @template {Cell} Unit */
class Block {
  /**
   * @param {Part<Unit>[]} parts
   * @param {Look<Unit>} look
   * @param {HTMLElement} option a copy of it becomes a unit
   */
  constructor(parts, look, option) {
    this.element = h("div");
    this.first = parts[0]?.first ?? 0;
    this._parts = parts;
    this._look = look;
    this._option = option;
    this.isNear = false;
    /** @type {HTMLElement[]} */
    this._options = [];
  }

  get isFilled() {
    return this._options.length > 0;
  }

  /** Show the plain text, which is as high. */
  empty() {
    this._options = [];
    this.element.className = "plain";
    const lines = this._parts.map(({ units }) =>
      visible(units.map((unit) => unit.before + (unit.text || unit.name)).join("")),
    );
    this.element.textContent = lines.join("\n");
  }

  /** Show the units. */
  fill() {
    if (this.isFilled) return;
    this.element.className = "";
    const lines = this._parts.map(({ number, first, units }) => {
      const options = units.map((unit, index) => this._made(unit, first + index));
      this._options.push(...options);
      const children = units.flatMap((unit, index) => [visible(unit.before), options[index] ?? null]);
      return h("div", { dir: "auto", role: "group", "aria-label": `Line ${number}` }, ...children);
    });
    this.element.replaceChildren(...lines);
  }

  repaint() {
    const units = this._parts.flatMap((part) => part.units);
    this._options.forEach((option, at) => {
      const unit = units[at];
      if (!unit) return;
      option.className = this._look.kind(unit);
      option.ariaLabel = this._look.label(unit);
    });
  }

  /** @param {number} index */
  option(index) {
    return this._options[index - this.first];
  }

  /**
   * @param {Unit} unit
   * @param {number} index
   */
  _made(unit, index) {
    const made = /** @type {HTMLElement} */ (this._option.cloneNode());
    made.className = this._look.kind(unit);
    made.ariaLabel = this._look.label(unit);
    made.ariaPosInSet = String(index + 1);
    made.textContent = visible(unit.text) || unit.name;
    return made;
  }
}
