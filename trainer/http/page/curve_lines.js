/** Lines of a chart from the curves of runs: over steps, tokens, words or time, smoothed. */

import { SERIES } from "./curve_settings.js";
import { between } from "./scale.js";
import { smoothed } from "./smoothing.js";
import { natsOf } from "./units.js";

/** @import { Curve, Points, RunStatus } from "./records.js" */
/** @import { Axis, Line } from "./curves.js" */
/** @import { AxisName, CurveSettings, SeriesName } from "./curve_settings.js" */
/** @typedef {Pick<RunStatus, "train_loss" | "train_bits_per_char" | "best_val_loss" | "best_val_bits_per_char" | "val_loss" | "val_bits_per_char">} RatioFields */

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

/** @typedef {Exclude<keyof Curve, "run_id" | "last_event_id" | "total_points">} CurveName a list of points of a curve */
/**
 * The tokens per character of a run's splits; null where they are not known.
 * @typedef {{train: number | null, validation: number | null}} Ratio
 */
/** @type {Ratio} */
export const NO_RATIO = { train: null, validation: null };
/** Tokens that differ more in their characters have losses that cannot be compared. */
const MAX_UNLIKE = 1.1;

/**
 * Return the tokens per character of a run, from its losses in both units.
 * @param {RatioFields} run
 * @returns {Ratio}
 */
export function ratioOf(run) {
  const pairs = {
    train: [run.train_loss, run.train_bits_per_char],
    best: [run.best_val_loss, run.best_val_bits_per_char],
    last: [run.val_loss, run.val_bits_per_char],
  };
  const of = ([loss = null, bits = null] = /** @type {(number | null)[]} */ ([])) => (loss && bits ? natsOf(bits) / loss : null);
  const validation = of(pairs.best) ?? of(pairs.last);
  return { train: of(pairs.train) ?? validation, validation };
}

/**
 * Return true if the tokens of runs have so different lengths that only their losses per character can be compared.
 * @param {Ratio[]} ratios
 */
export function areUnlike(ratios) {
  const known = ratios.flatMap(({ train }) => train ?? []);
  return known.length > 1 && Math.max(...known) > MAX_UNLIKE * Math.min(...known);
}

/**
 * Return the curves of a series, each with the factor of its numbers; null for one that is not known.
 * @param {SeriesName} series
 * @param {Ratio} [ratio]
 * @returns {{name: CurveName, factor: number | null}[]}
 */
export function partsOf(series, ratio = NO_RATIO) {
  const [first = series] = series.split("_per_char");
  const names = /** @type {(keyof Ratio)[]} */ (first === "loss" ? ["train", "validation"] : [first]);
  return names.map((name) => ({ name, factor: first === series ? SERIES[series].factor : ratio[name] }));
}

/**
 * Return the lines of one run as the settings want them; of two, the second one is not smoothed.
 * @param {Curve} curve
 * @param {Pick<CurveSettings, "series" | "axis" | "smoothing">} settings
 * @param {number} factor of the x axis
 * @param {{train: Named, validation?: Named}} names
 * @param {Ratio} [ratio]
 * @returns {Line[]}
 */
export function linesOfCurve(curve, { series, axis, smoothing }, factor, { train, validation = train }, ratio) {
  const [first, second] = partsOf(series, ratio).map((part) => over(curve, axis, scaled(curve[part.name], part.factor), factor));
  return [line(train, first ?? [], smoothing), ...(second ? [{ ...validation, points: second }] : [])];
}

/**
 * Return points with their numbers times a factor; none without one.
 * @param {Points} points
 * @param {number | null} factor
 * @returns {Points}
 */
export function scaled(points, factor) {
  return factor === null ? [] : points.map(([step, value]) => [step, value * factor]);
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
