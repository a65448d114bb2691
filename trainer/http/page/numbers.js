/** Numbers, sizes and times as text. */

import { TABLES } from "./tables.js";
import { inUnit, natsOf, unit } from "./units.js";

/** @import { Points } from "./records.js" */

/** Formats by their number of decimals: it takes long to make one. */
const FORMATS = Array.from(
  { length: 7 },
  (_, digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "negative" }),
);
const DATES = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/**
 * Write a number with fixed decimals; a dash for an unknown one.
 * @param {number | null} value
 * @param {number} digits at most 6
 */
export function decimal(value, digits = 3) {
  return value === null ? "–" : withMinus(FORMATS[digits]?.format(value) ?? "");
}

/**
 * Write a number with a minus for the hyphen of a program.
 * @param {string} number
 */
export function withMinus(number) {
  return number.replace(/^-/, "−");
}

/**
 * Write nats per token or character, a mean or a difference of them, in the unit of the page.
 * @param {number | null} nats
 */
export function loss(nats) {
  return decimal(nats && inUnit(nats), TABLES.loss_digits);
}

/**
 * Write bits per character in the unit of the page, with a warning if too many characters are unknown to compare them.
 * @param {number | null} bits
 * @param {number | null} unknownShare
 */
export function perChar(bits, unknownShare = null) {
  return marked(loss(bits && natsOf(bits)), bits, unknownShare);
}

/**
 * Put a warning behind a figure that is too low to compare because of unknown characters.
 * @param {string} text
 * @param {number | null} value
 * @param {number | null} unknownShare
 */
export function marked(text, value, unknownShare = null) {
  return `${text}${value !== null && (unknownShare ?? 0) > TABLES.max_unknown_char_share ? " ⚠ unknown characters" : ""}`;
}

/**
 * Write the surprisal of a token, a word or a region, or a sum of them, in the unit of the page.
 * @param {number | null} nats
 */
export function surprisal(nats) {
  return decimal(nats && inUnit(nats), TABLES.surprisal_digits);
}

/**
 * @param {number | null} value
 * @param {number | null} unknownShare
 */
export function perplexity(value, unknownShare = null) {
  return marked(decimal(value, TABLES.perplexity_digits), value, unknownShare);
}

/**
 * Write a number with its sign; what is rounded to zero has a plus.
 * @param {number | null} value
 * @param {(value: number | null) => string} write
 */
export function signed(value, write) {
  const text = write(value);
  return value === null || text.startsWith("−") ? text : `+${text}`;
}

/**
 * Write the mean of the known numbers with their standard deviation; a dash without any.
 * @param {(number | null)[]} values
 * @param {(value: number) => string} write
 */
export function meanOf(values, write = decimal) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return "–";
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = known.length > 1 ? ` ± ${write(Math.sqrt(squares / (known.length - 1)))}` : "";
  return `${write(mean)}${deviation}`;
}

/** @param {number | null} value */
export function percent(value, digits = TABLES.share_digits) {
  return value === null ? "–" : `${decimal(value * 100, digits)} %`;
}

/**
 * Write a sentence of the server, and the numbers in it that have a unit, in the unit of the page.
 * @param {string} text
 */
export function withChosenUnit(text) {
  return text.replace(/(?:([+-]?\d+(?:\.(\d+))?(?:e[+-]\d+)?) )?\b(bits|nats)(?= per )/g, (_, number, decimals = "", name) => {
    if (number === undefined) return unit();
    const nats = name === "bits" ? natsOf(Number(number)) : Number(number);
    return `${decimal(inUnit(nats), Math.min(decimals.length, 6))} ${unit()}`;
  });
}

/** @param {string} text */
export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** @param {number} value */
export function size(value) {
  const unit = value < 1e3 ? 0 : value < 1e6 ? 1 : value < 1e9 ? 2 : 3;
  return `${decimal(value / 1000 ** unit, unit ? 1 : 0)} ${["bytes", "kB", "MB", "GB"][unit]}`;
}

/** @param {string | null} time */
export function date(time) {
  return time === null ? "–" : DATES.format(new Date(time));
}

/** @param {number | null} seconds */
export function duration(seconds) {
  if (seconds === null) return "–";
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return (
    parts
      .map((part, index) => (part ? `${part} ${"h min s".split(" ")[index]}` : ""))
      .filter(Boolean)
      .join(" ") || "0 s"
  );
}

/**
 * Return mean, lowest and highest value of curves at the steps of any of them, as far as all reach.
 * @param {readonly Points[]} curves
 */
export function bandOf(curves) {
  const known = curves.filter((curve) => curve.length);
  const own = known.map((curve) => curve.map(([step]) => step));
  const begin = Math.max(...own.map((steps) => Math.min(...steps)));
  const end = Math.min(...own.map((steps) => Math.max(...steps)));
  const steps = [...new Set(own.flat())]
    .filter((step) => step >= begin && step <= end)
    .sort((one, other) => one - other);
  const columns = known.map((curve) => valuesAt(curve, steps));
  /** @type {(of: (values: number[]) => number) => [number, number][]} */
  const points = (of) => steps.map((step, row) => [step, of(columns.map((column) => column[row] ?? NaN))]);
  const mean = points((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
  return { mean, low: points((values) => Math.min(...values)), high: points((values) => Math.max(...values)) };
}

/**
 * Return the values of a curve at rising steps that are not outside of it; between two steps it is a straight line.
 * @param {Points} curve
 * @param {number[]} steps
 */
function valuesAt(curve, steps) {
  let place = 0;
  return steps.map((step) => {
    while ((curve[place]?.[0] ?? step) < step) place += 1;
    const [after, value] = curve[place] ?? [step, NaN];
    const [before, earlier] = curve[place - 1] ?? [step, value];
    return after === step ? value : earlier + ((value - earlier) * (step - before)) / (after - before);
  });
}
