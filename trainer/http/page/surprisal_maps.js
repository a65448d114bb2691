/** Scores of a text as heat maps, tables and files: of one model, or of two with their difference. */

import { aligned, characterNats, differences } from "./alignment.js";
import { CLASSES, colourOf, FIXED_LIMITS, levelOf, quantileLimits } from "./color_scale.js";
import { kept } from "./drafts.js";
import { bdi, h, table } from "./elements.js";
import { heatMap } from "./heat_map.js";
import { bits, bitsPerChar, decimal, percent } from "./numbers.js";
import { codePoints, normalized, spoken, tokenLines, unitLines } from "./scored_text.js";
import { unitTable } from "./unit_table.js";

/** @import { LineScore, ScoreResponse } from "./records.js" */
/** @import { Token, Unit } from "./scored_text.js" */

/** @typedef {{name: string, score: ScoreResponse & {withheld?: string}}} Scored */
/**
 * A character and its bits under both models.
 * @typedef {{text: string, name: string, before: string, first: number | null, second: number | null,
 *   difference: number | null}} Change
 */

/** @type {Unit[]} */
const UNITS = ["tokens", "words", "characters"];
/** Classes of the sizes of differences. */
const SIZES = 4;
const NO_PLL =
  "One model gives pseudo-log-likelihoods, in which each token is given all others of its line. They cannot be compared" +
  " with the surprisals of the other model.";
const ON_DIFFERENCES =
  "A token's surprisal counts in equal shares for its characters, so that different tokenizers can be compared. A line" +
  " below: B finds the character less likely. A line above: more likely.";
const NOT_ALIGNED =
  "The two models normalize this text differently, so that its characters cannot be compared one by one.";

/**
 * Show the score of one model.
 * @param {string} text
 * @param {Scored} model
 * @returns {HTMLElement[]}
 */
export function scoredText(text, model) {
  const { score } = model;
  const facts = totals(score);
  if (score.withheld) return [notice(score.withheld), facts, lineTable(model)];
  const chars = normalized(text, score.words ?? []);
  const tokens = tokenLines(chars, score);
  const shownBy = remembered((unit) => {
    const lines = unitLines(chars, score, unit, tokens);
    const values = valuesOf(lines);
    return { lines, values, limits: quantileLimits(values) };
  });
  return [
    facts,
    ...chooser((unit, scale) => {
      const { lines, values, ...fitted } = shownBy(unit);
      const limits = scale === "fixed" ? FIXED_LIMITS : fitted.limits;
      return [
        legend(values, limits),
        ...mapOf(titleOf(unit), lines, limits),
        unitsTable(titleOf(unit), lines, model.name),
      ];
    }),
  ];
}

/**
 * Show the scores of two models: the totals, both maps with one scale, and the difference of each character.
 * @param {string} text
 * @param {Scored} one
 * @param {Scored} two
 * @returns {HTMLElement[]}
 */
export function comparedText(text, one, two) {
  const withheld = one.score.withheld ?? two.score.withheld;
  const facts = comparedTotals(one, two);
  if (withheld) return [notice(withheld), facts, lineTable(one), lineTable(two)];
  const [first, second] = [one, two].map(({ score }) => {
    const chars = normalized(text, score.words ?? []);
    return { score, chars, tokens: tokenLines(chars, score) };
  });
  if (!first || !second) return [facts];
  const difference = h("div");
  setTimeout(() => {
    const changes = changesOf(first, second); // after the maps are painted
    difference.append(...(changes ? changeMap(changes, `${one.name}-${two.name}`) : [notice(NOT_ALIGNED)]));
  });
  const shownBy = remembered((unit) => {
    const [left = [], right = []] = [first, second].map(({ score, chars, tokens }) =>
      unitLines(chars, score, unit, tokens),
    );
    const values = [...valuesOf(left), ...valuesOf(right)];
    return { left, right, values, limits: quantileLimits(values) };
  });
  return [
    facts,
    ...chooser((unit, scale) => {
      const { left, right, values, ...fitted } = shownBy(unit);
      const limits = scale === "fixed" ? FIXED_LIMITS : fitted.limits;
      const map = (/** @type {string} */ title, /** @type {Token[][]} */ lines, /** @type {Scored} */ model) =>
        h(
          "div",
          {},
          h("h3", {}, title, ": ", h("code", {}, model.name)),
          ...mapOf(`${titleOf(unit)}, ${title}`, lines, limits),
        );
      return [
        legend(values, limits),
        h("div", { class: "pair" }, map("A", left, one), map("B", right, two)),
        unitsTable(`${titleOf(unit)} of A`, left, one.name),
        unitsTable(`${titleOf(unit)} of B`, right, two.name),
      ];
    }),
    difference,
  ];
}

/** @param {string} message */
function notice(message) {
  return h("p", { class: "warning" }, `⚠ ${message}`);
}

/** @param {Unit} unit */
function titleOf(unit) {
  return { tokens: "Tokens", words: "Words", characters: "Characters" }[unit];
}

/**
 * Make the choice of a unit and of a scale, and what is shown with them.
 * @param {(unit: Unit, scale: string) => HTMLElement[]} content
 */
function chooser(content) {
  const place = h("div");
  const select = (/** @type {string} */ id, /** @type {[string, string][]} */ choices) =>
    kept(
      h("select", { id, onchange: () => draw() }, ...choices.map(([value, name]) => h("option", { value }, name))),
      id,
    );
  const unit = select(
    "unit",
    UNITS.map((name) => [name, name]),
  );
  const scale = select("scale", [
    ["quantiles", "fitted to this text"],
    ["fixed", "whole bits"],
  ]);
  const draw = () => place.replaceChildren(...content(/** @type {Unit} */ (unit.value), scale.value));
  draw();
  return [
    h(
      "div",
      { class: "options" },
      h("div", {}, h("label", { for: "unit" }, "Unit"), unit),
      h("div", {}, h("label", { for: "scale" }, "Colours"), scale),
    ),
    place,
  ];
}

/**
 * Compute a value for each unit once: those of other units after the first is shown, so that a choice shows at once.
 * @template Value
 * @param {(unit: Unit) => Value} compute
 */
function remembered(compute) {
  /** @type {Map<Unit, Value>} */
  const found = new Map();
  UNITS.forEach((unit, index) => setTimeout(() => found.has(unit) || found.set(unit, compute(unit)), index * 100));
  return (/** @type {Unit} */ unit) => {
    const value = found.get(unit) ?? compute(unit);
    found.set(unit, value);
    return value;
  };
}

/**
 * Return the surprisals of the scored units in bits.
 * @param {Token[][]} lines
 */
function valuesOf(lines) {
  const values = [];
  for (const line of lines) for (const { nats } of line) if (nats !== null) values.push(bits(nats));
  return values;
}

/**
 * Show the range of each colour, in bits.
 * @param {number[]} values
 * @param {number[]} limits
 */
function legend(values, limits) {
  const least = values.reduce((found, value) => Math.min(found, value), Infinity);
  const most = values.reduce((found, value) => Math.max(found, value), 0);
  const isFixed = limits === FIXED_LIMITS;
  const written = (/** @type {number} */ value) => decimal(value, isFixed ? 0 : 2);
  const ranges = [isFixed ? 0 : Math.min(least, most), ...limits].map((from, level) => {
    const to = limits[level] ?? (isFixed ? null : most);
    return h(
      "span",
      { class: `h${colourOf(level, limits.length + 1)}` },
      to === null ? `${written(from)}+` : `${written(from)}–${written(to)}`,
    );
  });
  const ties = !isFixed && limits.length + 1 < CLASSES ? " Equal surprisals have one colour." : "";
  return h(
    "p",
    { class: "scale" },
    "bits:\u00a0",
    ...ranges,
    " ",
    h("span", { class: "unknown" }, "unknown"),
    " ",
    h("span", { class: "unscored" }, "not scored"),
    h("span", { class: "quiet" }, ties),
  );
}

/**
 * @param {string} name
 * @param {Token[][]} lines
 * @param {number[]} limits
 */
function mapOf(name, lines, limits) {
  return heatMap(name, lines, {
    kind: ({ nats, isKnown }) => {
      const kind = nats === null ? "unscored" : `h${colourOf(levelOf(bits(nats), limits), limits.length + 1)}`;
      return isKnown ? kind : `${kind} unknown`;
    },
    label: (token) => `${spoken(token.text)}: ${surprisal(token)}`,
    details: detailsOf,
  });
}

/** @param {Token} token */
function surprisal({ nats, isKnown }) {
  const value = nats === null ? "not scored" : `${decimal(bits(nats))} bits`;
  return isKnown ? value : `${value}, unknown to the model`;
}

/** @param {Token} token */
function detailsOf(token) {
  const { nats, rank, isKnown } = token;
  const parts = [
    nats === null ? "not scored" : `${decimal(bits(nats))} bits = ${decimal(nats)} nats`,
    rank === null ? "" : ` · rank ${rank}`,
    isKnown ? "" : " · unknown to the model",
    token.expected.length ? " · expected: " : "",
  ];
  return [bdi(spoken(token.text)), `: ${parts.join("")}`, ...likeliest(token.expected)];
}

/** @param {[string, number][]} tokens with their probabilities */
export function likeliest(tokens) {
  return tokens.flatMap(([name, share], index) => [index ? ", " : "", bdi(spoken(name)), ` ${percent(share)}`]);
}

/**
 * @param {string} title
 * @param {Token[][]} lines
 * @param {string} model
 */
function unitsTable(title, lines, model) {
  /** @type {import("./unit_table.js").Column<Token>[]} */
  const columns = [
    {
      title: "Text",
      value: ({ text }) => text,
      show: ({ text, isKnown }) => h("span", {}, bdi(spoken(text)), isKnown ? "" : " (unknown)"),
    },
    { title: "Code points", value: ({ text }) => codePoints(text) },
    { title: "Start", value: ({ span }) => span[0] },
    { title: "Surprisal, nats", value: ({ nats }) => nats, show: ({ nats }) => decimal(nats) },
    {
      title: "Bits",
      value: ({ nats }) => (nats === null ? null : bits(nats)),
      show: ({ nats }) => decimal(nats === null ? null : bits(nats)),
    },
  ];
  const units = lines.flat();
  if (units.some(({ rank }) => rank !== null)) columns.push({ title: "Rank", value: ({ rank }) => rank });
  if (units.some(({ expected }) => expected.length))
    columns.push({
      title: "Expected",
      value: ({ expected }) => expected.map(([name, share]) => `${name} ${share}`).join("; "),
      show: ({ expected }) => h("span", {}, ...likeliest(expected)),
    });
  return unitTable(title, columns, units, `${model}-${title.toLowerCase().replaceAll(" ", "-")}.csv`);
}

/** @param {Scored} model */
function lineTable({ name, score }) {
  /** @type {import("./unit_table.js").Column<LineScore>[]} */
  const columns = [
    { title: "Line", value: ({ number }) => number },
    { title: "Characters", value: ({ n_chars }) => n_chars },
    { title: "Tokens", value: ({ n_tokens }) => n_tokens },
    { title: "Surprisal, nats", value: ({ nats }) => nats, show: ({ nats }) => decimal(nats) },
  ];
  return unitTable(`Lines of ${name}`, columns, score.lines ?? [], `${name}-lines.csv`);
}

/** @param {ScoreResponse} score */
function totals(score) {
  const pairs = [
    ["Total", `${decimal(score.nats, 2)} nats`],
    ["Bits per character", bitsPerChar(score.bits_per_char, score.unknown_char_share)],
    ["Perplexity", decimal(score.perplexity, 2)],
    ["Mean per token", `${decimal(score.mean_surprisal)} nats`],
    ["Scored tokens", decimal(score.n_scored, 0)],
    ["Unknown characters", decimal(score.unknown_chars, 0)],
  ];
  if (score.method !== "causal") pairs.push(["Method", "pseudo-log-likelihood"]);
  return h(
    "dl",
    { class: "facts" },
    ...pairs.map(([name = "", value = ""]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/**
 * @param {Scored} one
 * @param {Scored} two
 */
function comparedTotals(one, two) {
  const inBits = (/** @type {Scored} */ { score }) => (score.nats === null ? null : bits(score.nats));
  /** @type {[string, (scored: Scored) => number | null, number][]} */
  const numbers = [
    ["Total without line ends, bits", inBits, 2],
    ["Bits per character", ({ score }) => score.bits_per_char, 3],
    ["Perplexity", ({ score }) => score.perplexity, 2],
    ["Scored tokens", ({ score }) => score.n_scored, 0],
    ["Unknown characters", ({ score }) => score.unknown_chars, 0],
  ];
  const rows = numbers.map(([name, number, digits]) => {
    const [first, second] = [number(one), number(two)];
    return [
      name,
      decimal(first, digits),
      decimal(second, digits),
      signed(first === null || second === null ? null : second - first, digits),
    ];
  });
  return h(
    "div",
    {},
    table("Totals of both models", ["Number", `A: ${one.name}`, `B: ${two.name}`, "B − A"], rows),
    ...(one.score.method === two.score.method ? [] : [notice(NO_PLL)]),
  );
}

/**
 * Write a number with its sign.
 * @param {number | null} value
 */
function signed(value, digits = 3) {
  return `${value !== null && value > 0 ? "+" : ""}${decimal(value, digits).replace("-", "−")}`;
}

/**
 * Return the difference of each character of the first text, in its lines; null where the texts differ.
 * @param {{score: ScoreResponse, chars: string[], tokens: Token[][]}} one
 * @param {{score: ScoreResponse, chars: string[], tokens: Token[][]}} two
 * @returns {Change[][] | null}
 */
function changesOf(one, two) {
  const ends = aligned(one.chars, two.chars);
  if (!ends) return null;
  const [first = [], second = []] = [one, two].map(({ chars, tokens }) => characterNats(chars.length, tokens));
  const ranges = differences(ends, first, second);
  const inBits = (/** @type {number | null} */ nats) => (nats === null ? null : bits(nats));
  let index = 0;
  return (one.score.lines ?? []).map(({ span: [start, end] }) => {
    /** @type {Change[]} */
    const line = [];
    for (let range = ranges[index]; range && range.start < end; range = ranges[++index]) {
      if (range.start < start) continue; // a blank line, or the end of one
      const text = one.chars.slice(range.start, range.end).join("");
      const numbers = {
        first: inBits(range.first),
        second: inBits(range.second),
        difference: inBits(range.difference),
      };
      line.push({ text, name: text, before: "", ...numbers });
    }
    return line;
  });
}

/**
 * Show the difference of each character; not by colour alone: more has a line below, less a line above.
 * @param {Change[][]} lines
 * @param {string} models
 */
function changeMap(lines, models) {
  const sizes = lines.flatMap((line) =>
    line.flatMap(({ difference }) => (difference === null ? [] : [Math.abs(difference)])),
  );
  const limits = quantileLimits(sizes, SIZES, 0);
  const most = sizes.reduce((found, value) => Math.max(found, value), 0);
  const kind = (/** @type {number} */ difference) => {
    const level = levelOf(Math.abs(difference), limits);
    return level ? `${difference > 0 ? "more" : "less"}${level + SIZES - 1 - limits.length}` : "same";
  };
  const ends = [...limits, most];
  const steps = limits.map((limit, index) => ({ limit, to: ends[index + 1] ?? most }));
  const range = (/** @type {string} */ sign, /** @type {{limit: number, to: number}} */ { limit, to }) =>
    h("span", { class: kind(sign === "+" ? limit : -limit) }, `${sign}${decimal(limit, 2)}–${decimal(to, 2)}`);
  const described = (/** @type {Change} */ { difference }) =>
    difference === null ? "not scored" : `${signed(difference)} bits`;
  return [
    h("h3", {}, "Difference of each character, B − A"),
    h("p", { class: "quiet" }, ON_DIFFERENCES),
    h(
      "p",
      { class: "scale" },
      "bits:\u00a0",
      ...steps.toReversed().map((step) => range("−", step)),
      h("span", { class: "same" }, limits.length ? `less than ${decimal(limits[0] ?? 0, 2)}` : "0"),
      ...steps.map((step) => range("+", step)),
      " ",
      h("span", { class: "unscored" }, "not scored"),
    ),
    ...heatMap("Differences of characters", lines, {
      kind: ({ difference }) => (difference === null ? "unscored" : kind(difference)),
      label: (change) => `${spoken(change.text)}: ${described(change)}`,
      details: (change) => [
        bdi(spoken(change.text)),
        `: ${described(change)} · A ${decimal(change.first)}, B ${decimal(change.second)} bits`,
      ],
    }),
    unitTable(
      "Differences of characters",
      [
        { title: "Text", value: ({ text }) => text, show: ({ text }) => bdi(spoken(text)) },
        { title: "Code points", value: ({ text }) => codePoints(text) },
        { title: "A, bits", value: ({ first }) => first, show: ({ first }) => decimal(first) },
        { title: "B, bits", value: ({ second }) => second, show: ({ second }) => decimal(second) },
        { title: "B − A, bits", value: ({ difference }) => difference, show: ({ difference }) => signed(difference) },
      ],
      lines.flat(),
      `${models}-differences.csv`,
    ),
  ];
}
