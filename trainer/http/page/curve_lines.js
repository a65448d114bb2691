/** Lines of a chart from the curves of runs: over steps, tokens, words or time, smoothed. */

import { SERIES } from "./curve_settings.js";
import { between } from "./scale.js";
import { smoothed } from "./smoothing.js";

/** @import { Curve, Points } from "./records.js" */
/** @import { Axis, Line } from "./curves.js" */
/** @import { AxisName, CurveSettings } from "./curve_settings.js" */

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
 * @param {{train: Named, validation?: Named}} names
 * @returns {Line[]}
 */
export function linesOfCurve(curve, { series, axis, smoothing }, factor, { train, validation = train }) {
  const overX = (/** @type {Points} */ points) => over(curve, axis, points, factor);
  if (series === "loss") return [line(train, overX(curve.train), smoothing), { ...validation, points: overX(curve.validation) }];
  const points = curve[series].map(([step, value]) => /** @type {[number, number]} */ ([step, value * SERIES[series].factor]));
  return [line(train, overX(points), smoothing)];
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
