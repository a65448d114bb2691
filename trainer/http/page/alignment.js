/** Characters of two scores of one text: their surprisals, and the characters that both have in common. */

/** @import { Span } from "./records.js" */

/** @typedef {{nats: number | null, span: Span}} Spanned */

/**
 * Return the surprisal of each character, in nats: that of a token in equal shares.
 *
 * A token without characters adds to the next one of its line, or to the last one of the line.
 * @param {number} count
 * @param {Spanned[][]} lines
 * @returns {(number | null)[]}
 */
export function characterNats(count, lines) {
  /** @type {(number | null)[]} */
  const found = Array(count).fill(null);
  const add = (/** @type {number} */ nats, /** @type {number} */ start, /** @type {number} */ end) => {
    for (let at = start; at < end; at++) found[at] = (found[at] ?? 0) + nats / (end - start);
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
 * Return the smallest ranges that cover the same characters of a text in two normalized forms, in order.
 *
 * Letter case and composition may differ. null if other things do.
 * @param {string[]} first the characters of the text
 * @param {string[]} second
 * @returns {[Span, Span][] | null}
 */
export function aligned(first, second) {
  /** @type {[Span, Span][]} */
  const ranges = [];
  let [one, two] = [0, 0];
  while (one < first.length || two < second.length) {
    const [start, other] = [one, two];
    let [left, right] = [first[one++], second[two++]];
    while (left !== right) {
      [left, right] = [folded(left), folded(right)];
      if (left.length < right.length && one < first.length) left += folded(first[one++]);
      else if (right.length < left.length && two < second.length) right += folded(second[two++]);
      else if (left !== right) return null;
    }
    ranges.push([
      [start, one],
      [other, two],
    ]);
  }
  return ranges;
}

/** @param {string | undefined} char */
function folded(char) {
  return (char ?? "").toLowerCase().normalize("NFD");
}

/**
 * Return how many nats the second score has more in each range; null where a character has no surprisal.
 * @param {[Span, Span][]} ranges
 * @param {(number | null)[]} first the surprisal of each character
 * @param {(number | null)[]} second
 */
export function differences(ranges, first, second) {
  return ranges.map(([one, two]) => {
    const [before, after] = [total(first, one), total(second, two)];
    return { before, after, difference: before === null || after === null ? null : after - before };
  });
}

/**
 * @param {(number | null)[]} nats
 * @param {Span} span
 */
function total(nats, [start, end]) {
  let sum = 0;
  for (let at = start; at < end; at++) {
    const value = nats[at] ?? null;
    if (value === null) return null;
    sum += value;
  }
  return sum;
}
