/** Numbers, sizes and times as text. */

/** @import { Baseline } from "./records.js" */

/** Formats by their number of decimals: it takes long to make one. */
const FORMATS = Array.from(
  { length: 7 },
  (_, digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const DATES = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/**
 * Write a number with fixed decimals; a dash for an unknown one.
 * @param {number | null} value
 * @param {number} digits at most 6
 */
export function decimal(value, digits = 3) {
  return value === null ? "–" : (FORMATS[digits]?.format(value) ?? "");
}

/**
 * Write a number with its sign.
 * @param {number | null} value
 */
export function signed(value, digits = 3) {
  return `${value !== null && value > 0 ? "+" : ""}${decimal(value, digits).replace("-", "−")}`;
}

/**
 * Write the mean of the known numbers with their standard deviation; a dash without any.
 * @param {(number | null)[]} values
 */
export function meanOf(values, digits = 3) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return "–";
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = known.length > 1 ? ` ± ${decimal(Math.sqrt(squares / (known.length - 1)), digits)}` : "";
  return `${decimal(mean, digits)}${deviation}`;
}

/** @param {number | null} value */
export function percent(value, digits = 1) {
  return value === null ? "–" : `${decimal(value * 100, digits)} %`;
}

/**
 * Write bits per character, with a warning if so many characters are unknown that they are too low to compare.
 * @param {number | null} value
 * @param {number | null} unknownShare
 */
export function bitsPerChar(value, unknownShare) {
  return `${decimal(value)}${value !== null && (unknownShare ?? 0) > 0.001 ? " ⚠ unknown characters" : ""}`;
}

/**
 * Compare a model with the best n-gram of its training text.
 * @param {Baseline} baseline
 */
export function counting({ order, ngram_bits_per_char, bits_per_char, margin, counted_tokens, train_tokens }) {
  const difference = bits_per_char - ngram_bits_per_char;
  const [low, high] = [-1, 1].map((side) => signed(difference + side * (margin ?? 0), 2));
  const interval = margin === null ? "" : `, 95 % interval ${low} to ${high}`;
  const [counted, all] = [counted_tokens, train_tokens].map((tokens) => decimal(tokens, 0));
  return (
    `${order === 1 ? "unigram" : `${order}-gram`}: ${decimal(ngram_bits_per_char)} bits per character; this model` +
    ` ${decimal(bits_per_char)} (${signed(difference, 2)})${interval}` +
    (counted_tokens < train_tokens ? `; counted in ${counted} of ${all} tokens` : "")
  );
}

/** @param {number} nats */
export function bits(nats) {
  return nats / Math.LN2;
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
