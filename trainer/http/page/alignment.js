/** Characters of two scores of one text: their surprisals, and the characters that both have in common. */

/** @import { Span } from "./records.js" */

/** @typedef {{nats: number | null, span: Span}} Spanned */

/**
 * Return the surprisal of each character, in nats: that of a token in equal shares.
 *
 * It is NaN where no token is scored. A token without characters adds to the next one of its line, or to the last one.
 * @param {number} count
 * @param {Spanned[][]} lines
 */
export function characterNats(count, lines) {
  const found = new Float64Array(count).fill(NaN);
  const add = (/** @type {number} */ nats, /** @type {number} */ start, /** @type {number} */ end) => {
    for (let at = start; at < end; at++) found[at] = (found[at] || 0) + nats / (end - start);
  };
  for (const tokens of lines) {
    let carried = 0;
    let last = null;
    for (const { nats, span } of tokens) {
      if (nats === null) continue;
      const [start, end] = span;
      if (start === end) carried += nats;
      else {
        add(nats + carried, start, end);
        [carried, last] = [0, end];
      }
    }
    if (carried && last !== null) add(carried, last - 1, last);
  }
  return found;
}

/**
 * Return the ends of the smallest ranges that cover the same characters of a text in two normalized forms.
 *
 * Letter case and composition may differ. null if other things do.
 * @param {string[]} first the characters of the text
 * @param {string[]} second
 * @returns {{first: number[], second: number[]} | null}
 */
export function aligned(first, second) {
  /** @type {{first: number[], second: number[]}} */
  const ends = { first: [], second: [] };
  let [one, two] = [0, 0];
  while (one < first.length || two < second.length) {
    let left = first[one++];
    let right = second[two++];
    while (left !== right) {
      [left, right] = [folded(left), folded(right)];
      if (left.length < right.length && one < first.length) left += folded(first[one++]);
      else if (right.length < left.length && two < second.length) right += folded(second[two++]);
      else if (left !== right) return null;
    }
    ends.first.push(one);
    ends.second.push(two);
  }
  return ends;
}

/** @param {string | undefined} char */
function folded(char) {
  return (char ?? "").toLowerCase().normalize("NFD");
}

/**
 * Return the surprisal of each range, in nats; NaN where a character has none.
 * @param {number[]} ends of the ranges
 * @param {Float64Array} nats the surprisal of each character
 */
export function rangeNats(ends, nats) {
  const found = new Float64Array(ends.length);
  let at = 0;
  ends.forEach((end, index) => {
    let sum = 0;
    for (; at < end; at++) sum += nats[at] ?? NaN;
    found[index] = sum;
  });
  return found;
}
