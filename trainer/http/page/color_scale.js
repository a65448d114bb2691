/** Classes of a colour scale: their limits, from the quantiles of a text or fixed, and the class of a value. */

export const CLASSES = 8;
/** Whole units of surprisal. */
export const FIXED_LIMITS = [1, 2, 3, 4, 5, 6, 7];

/**
 * Return the limits of classes with about as many values each, ascending; equal values are in one class.
 *
 * Class k has the values from limit k - 1 on, so that ties leave fewer classes.
 * @param {Float64Array} sorted the values, ascending
 * @param {number} classes
 * @param {number} [floor] a limit must be larger; default: the smallest value
 */
export function quantileLimits(sorted, classes = CLASSES, floor) {
  const least = floor ?? sorted[0] ?? 0;
  const limits = Array.from(
    { length: classes - 1 },
    (_, k) => sorted[Math.floor(((k + 1) * sorted.length) / classes)] ?? 0,
  );
  return limits.filter((limit, k) => limit > Math.max(least, limits[k - 1] ?? least));
}

/**
 * Return the number of limits that a value reaches.
 * @param {number} value
 * @param {number[]} limits
 */
export function levelOf(value, limits) {
  return limits.filter((limit) => value >= limit).length;
}

/**
 * Return the colour of a class among all colours, from the first to the last one; a single class has the first.
 * @param {number} level
 * @param {number} classes
 */
export function colourOf(level, classes) {
  return classes > 1 ? Math.round((level * (CLASSES - 1)) / (classes - 1)) : 0;
}
