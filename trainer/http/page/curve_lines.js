/** Lines of a chart from the curves of runs: over steps, tokens, words or time, smoothed. */

import { SERIES } from "./curve_settings.js";
import { smoothed } from "./smoothing.js";

/** @import { Curve, Points } from "./records.js" */
/** @import { Axis, Line } from "./curves.js" */
/** @import { AxisName, CurveSettings } from "./curve_settings.js" */

/** Points of a curve that the page asks for. */
export const POINTS = 1000;
const TIMES = [
  { unit: "hours", seconds: 3600 },
  { unit: "minutes", seconds: 60 },
  { unit: "seconds", seconds: 1 },
];

/**
 * Return the x axis of curves, and the number of its units in one of the curve.
 * @param {AxisName} name
 * @param {Curve[]} curves
 * @returns {{x: Axis, factor: number}}
 */
export function axisOf(name, curves) {
  if (name !== "seconds") return { x: { name }, factor: 1 };
  const longest = Math.max(...curves.map((curve) => curve.seconds.at(-1)?.[1] ?? 0));
  const { unit, seconds } = TIMES.find((time) => longest > 3 * time.seconds) ?? { unit: "seconds", seconds: 1 };
  return { x: { name: "time", unit }, factor: 1 / seconds };
}

/**
 * Return the lines of one run as the settings want them.
 * @param {Curve} curve
 * @param {CurveSettings} settings
 * @param {number} factor of the x axis
 * @param {{train: Named, validation: Named}} names
 * @returns {Line[]}
 */
export function linesOfCurve(curve, { series, axis, smoothing }, factor, { train, validation }) {
  const overX = (/** @type {Points} */ points) => over(curve, axis, points, factor);
  if (series !== "loss") {
    const points = curve[series].map(([step, value]) => /** @type {[number, number]} */ ([step, value * SERIES[series].factor]));
    return [line(train, overX(points), smoothing)];
  }
  return [line(train, overX(curve.train), smoothing), { ...validation, points: overX(curve.validation) }];
}

/** @typedef {{name: string, label: string, style: string}} Named */

/**
 * Make a line, smoothed over its own points, which stay visible behind it.
 * @param {Named} named
 * @param {Points} points
 * @param {number} weight
 * @returns {Line}
 */
export function line(named, points, weight) {
  return weight ? { ...named, points: smoothed(points, weight), raw: points } : { ...named, points };
}

/**
 * Return points over an axis, sorted by it: a resumed training comes to a step again, later.
 * @param {Curve} curve
 * @param {AxisName} axis
 * @param {Points} points by step
 * @param {number} factor
 * @returns {Points}
 */
export function over(curve, axis, points, factor) {
  if (axis === "step") return points;
  const scale = curve[axis];
  return points
    .map(([step, value]) => /** @type {[number, number]} */ ([between(scale, step, 0) * factor, value]))
    .sort(([one], [two]) => one - two);
}

/**
 * Return the step at a place of an axis.
 * @param {Curve} curve
 * @param {AxisName} axis
 * @param {number} place
 */
export function stepAt(curve, axis, place) {
  return axis === "step" ? place : between(curve[axis], place, 1);
}

/**
 * Return the other number of the point with this number, on the line between its neighbours, or of the nearest end.
 * @param {Points} points in the order of that number
 * @param {number} wanted
 * @param {0 | 1} column of the number
 */
export function between(points, wanted, column) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.[column] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  const other = column ? 0 : 1;
  const [before, after] = [points[low - 1] ?? points[0], points[low] ?? points.at(-1)];
  if (!before || !after) return NaN;
  const width = after[column] - before[column];
  const share = width ? (wanted - before[column]) / width : 0;
  return before[other] + Math.min(1, Math.max(0, share)) * (after[other] - before[other]);
}
