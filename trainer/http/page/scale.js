/** Scales of a chart, and places on its lines. */

import { withMinus } from "./numbers.js";

/** @import { Points } from "./records.js" */

/**
 * Return round numbers that divide a range: steps of 1, 2 or 5 times a power of ten.
 * @param {number} low
 * @param {number} high
 * @param {number} count about so many
 */
export function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough * 0.999) ?? 10) * power;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

/**
 * Return round numbers that divide a range of a logarithmic axis: powers of ten, with their 2 and 5 fold if there is room.
 * @param {number} low above 0
 * @param {number} high
 * @param {number} count about so many
 */
export function logTicks(low, high, count) {
  if (high / low < 10) return ticks(low, high, count).filter((tick) => tick > 0);
  const first = Math.floor(Math.log10(low));
  const powers = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, index) => first + index);
  const inRange = (/** @type {number[]} */ values) =>
    values.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
  const all = inRange(powers.flatMap((power) => [1, 2, 5].map((factor) => Number(`${factor}e${power}`))));
  if (all.length <= count * 1.5) return all;
  return thinned(inRange(powers.map((power) => Number(`1e${power}`))), Math.ceil(count));
}

/**
 * Write a number of an axis: 250K, 1.5M, 0.02, 3e-5.
 * @param {number} value
 */
export function tickText(value) {
  if (value !== 0 && Math.abs(value) < 1e-3) return withMinus(value.toExponential());
  const notation = Math.abs(value) < 1e5 ? "standard" : "compact";
  return withMinus(value.toLocaleString("en", { notation, maximumSignificantDigits: 6 }));
}

/**
 * Return the lowest and the highest of some numbers; 0 and 1 if there are none.
 * @param {number[]} values
 * @returns {[number, number]}
 */
export function extent(values) {
  const low = values.reduce((least, value) => Math.min(least, value), Infinity);
  const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
  if (low > high) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/**
 * Return at most `count` items, evenly chosen, the last one included.
 * @template Item
 * @param {Item[]} items
 * @param {number} count
 */
export function thinned(items, count) {
  const stride = Math.ceil(items.length / count);
  return items.filter((_, index) => (items.length - 1 - index) % stride === 0);
}

/**
 * Move labels down until each has `gap` pixels to the one above it, and up again where they pass the bottom.
 * @param {number[]} heights
 * @param {number} gap
 */
export function apart(heights, gap, bottom = Infinity) {
  const moved = [...heights];
  const order = heights.map((_, index) => index).sort((one, two) => (heights[one] ?? 0) - (heights[two] ?? 0));
  let above = -Infinity;
  for (const index of order) above = moved[index] = Math.max(heights[index] ?? 0, above + gap);
  let below = bottom + gap;
  for (const index of order.reverse()) below = moved[index] = Math.min(moved[index] ?? 0, below - gap);
  return moved;
}

/**
 * Return a text of at most so many characters: of a longer one its beginning and its end.
 * @param {string} text
 * @param {number} most
 */
export function fitted(text, most) {
  const characters = [...text];
  if (characters.length <= most) return text;
  const end = Math.floor((most - 1) / 2);
  return `${characters.slice(0, most - 1 - end).join("")}…${characters.slice(characters.length - end).join("")}`;
}

/**
 * Return the index of the first point whose number is at least this one.
 * @param {Points} points in the order of that number
 * @param {number} wanted
 * @param {0 | 1} column of the number
 */
export function firstFrom(points, wanted, column) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.[column] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Return the other number of the point with this number, on the line between its neighbours, or of the nearest end.
 * @param {Points} points in the order of that number
 * @param {number} wanted
 * @param {0 | 1} column of the number
 */
export function between(points, wanted, column) {
  const at = firstFrom(points, wanted, column);
  const other = column ? 0 : 1;
  const [before, after] = [points[at - 1] ?? points[0], points[at] ?? points.at(-1)];
  if (!before || !after) return NaN;
  const width = after[column] - before[column];
  const share = width ? (wanted - before[column]) / width : 0;
  return before[other] + Math.min(1, Math.max(0, share)) * (after[other] - before[other]);
}
