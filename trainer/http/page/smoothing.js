/** Smoothing of curves. */

/** @import { Points } from "./records.js" */

/**
 * Return the exponential moving average of points as TensorBoard defines it: each average is divided by the sum of its
 * weights, so that the first ones are not drawn towards 0.
 * @param {Points} points
 * @param {number} weight of the average before a point, from 0 to below 1
 * @returns {Points}
 */
export function smoothed(points, weight) {
  let [average, weights] = [0, 0];
  return points.map(([place, value]) => {
    average = weight * average + (1 - weight) * value;
    weights = weight * weights + (1 - weight);
    return [place, average / weights];
  });
}
