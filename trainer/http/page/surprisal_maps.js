/** Scores of a text as heat maps, tables and files: of one model, or of two with their difference. */

import { afterPaint } from "./after_paint.js";
import { aligned, characterNats, rangeNats } from "./alignment.js";
import { CLASSES, colourOf, FIXED_LIMITS, levelOf, quantileLimits } from "./color_scale.js";
import { kept } from "./drafts.js";
import { bdi, h, live, table } from "./elements.js";
import { heatMap, joinedLetters, sumOf } from "./heat_map.js";
import { TABLES } from "./tables.js";
import { capital, decimal, loss, marked, perChar, percent, perplexity, signed, surprisal } from "./numbers.js";
import { noteText } from "./report.js";
import { codePoints, covered, normalized, segmentLines, spoken, tokenLines } from "./scored_text.js";
import { unitTable } from "./unit_table.js";
import { inUnit, onUnitChange, unit } from "./units.js";

/** @import { LineScore, ScoreResponse, Span } from "./records.js" */
/** @import { LiveText } from "./elements.js" */
/** @import { Segments, Token } from "./scored_text.js" */

/** @typedef {{name: string, title: string, score: ScoreResponse & {withheld?: string}}} Scored */
/**
 * A character and its surprisals under both models, in nats; NaN where it is not scored.
 * @typedef {{text: string, name: string, before: string, first: number, second: number, parts?: Change[]}} Change
 */
/** @typedef {{limits: number[], least: number, most: number}} Range limits of classes fitted to values, in nats */

/** @type {Segments[]} */
const SEGMENTS = ["tokens", "words", "characters"];
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
  const leaks = score.notes.map((note) => notice(noteText(note)));
  if (score.withheld) return [notice(score.withheld), facts, ...leaks, lineTable(model)];
  const chars = normalized(text, score.words ?? []);
  const tokens = tokenLines(chars, score);
  const linesBy = remembered((segments) => segmentLines(chars, score, segments, tokens));
  const rangeBy = remembered((segments) => rangeOf([linesBy(segments)]));
  const show = (/** @type {Segments} */ segments, /** @type {() => number[]} */ limits) => {
    const lines = linesBy(segments);
    const map = mapOf(capital(segments), lines, limits);
    return { maps: [map], elements: [...map.elements, segmentsTable(capital(segments), lines, model.name)] };
  };
  return [facts, ...leaks, ...chooser(rangeBy, show)];
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
  const place = h("div");
  afterPaint(() => {
    const changes = changesOf(first, second);
    afterPaint(() =>
      place.append(...(changes ? changeMap(changes, `${one.name}-${two.name}`) : [notice(NOT_ALIGNED)])),
    );
  });
  const linesBy = (/** @type {typeof first} */ { score, chars, tokens }) =>
    remembered((segments) => segmentLines(chars, score, segments, tokens));
  const [leftBy, rightBy] = [linesBy(first), linesBy(second)];
  const rangeBy = remembered((segments) => rangeOf([leftBy(segments), rightBy(segments)]));
  const show = (/** @type {Segments} */ segments, /** @type {() => number[]} */ limits) => {
    const [left, right] = [leftBy(segments), rightBy(segments)];
    const maps = [mapOf(`${capital(segments)}, A`, left, limits), mapOf(`${capital(segments)}, B`, right, limits)];
    const titled = maps.map(({ elements }, index) =>
      h("div", {}, h("h3", {}, index ? "B: " : "A: ", bdi((index ? two : one).title)), ...elements),
    );
    const elements = [
      h("div", { class: "pair" }, ...titled),
      segmentsTable(`${capital(segments)} of A`, left, one.name),
      segmentsTable(`${capital(segments)} of B`, right, two.name),
    ];
    return { maps, elements };
  };
  return [facts, ...chooser(rangeBy, show), place];
}

/** @param {string} message */
export function notice(message) {
  return h("p", { class: "warning" }, `⚠ ${message}`);
}

/**
 * Make the choice of segments and of a scale, and what is shown with them; another scale only changes colours.
 * @param {(segments: Segments) => Range} rangeBy
 * @param {(segments: Segments, limits: () => number[]) => {maps: {repaint: () => void}[], elements: HTMLElement[]}} show
 */
function chooser(rangeBy, show) {
  const place = h("div");
  const select = (
    /** @type {string} */ id,
    /** @type {() => void} */ onchange,
    /** @type {[string, LiveText][]} */ choices,
  ) => kept(h("select", { id, onchange }, ...choices.map(([value, name]) => h("option", { value }, name))), id);
  const draw = () => {
    const chosen = /** @type {Segments} */ (segments.value);
    const isFixed = () => scale.value === "fixed";
    const limits = () => (isFixed() ? fixedLimits() : rangeBy(chosen).limits);
    const { maps, elements } = show(chosen, limits);
    const colours = h("p", { class: "scale" });
    const explain = () => colours.replaceChildren(...legend(rangeBy(chosen), isFixed()));
    repaint = () => {
      explain();
      for (const map of maps) map.repaint();
    };
    explain();
    onUnitChange(colours, explain);
    place.replaceChildren(colours, ...elements);
  };
  let repaint = () => {};
  const segments = select(
    "segments",
    draw,
    SEGMENTS.map((name) => [name, name]),
  );
  const scale = select("scale", () => repaint(), [
    ["quantiles", "fitted to this text"],
    ["fixed", () => `whole ${unit()}`],
  ]);
  draw();
  return [
    h(
      "div",
      { class: "options" },
      h("div", {}, h("label", { for: "segments" }, "Segments"), segments),
      h("div", {}, h("label", { for: "scale" }, "Colours"), scale),
    ),
    place,
  ];
}

/**
 * Compute a value for each kind of segments once: the others after the first is painted, so that a choice shows at once.
 * @template Value
 * @param {(segments: Segments) => Value} compute
 */
function remembered(compute) {
  /** @type {Map<Segments, Value>} */
  const found = new Map();
  const valueOf = (/** @type {Segments} */ segments) => {
    const value = found.get(segments) ?? compute(segments);
    found.set(segments, value);
    return value;
  };
  for (const segments of SEGMENTS) afterPaint(() => void valueOf(segments));
  return valueOf;
}

/**
 * Return the range of the surprisals of some texts.
 * @param {Token[][][]} texts
 * @returns {Range}
 */
function rangeOf(texts) {
  const values = [];
  for (const lines of texts)
    for (const line of lines)
      for (const { nats } of joinedLetters(line, joined)) if (nats !== null) values.push(nats);
  const sorted = Float64Array.from(values).sort();
  return { limits: quantileLimits(sorted), least: sorted[0] ?? 0, most: sorted.at(-1) ?? 0 };
}

/** Return the limits between whole units, in nats. */
function fixedLimits() {
  return FIXED_LIMITS.map((limit) => limit / inUnit(1));
}

/**
 * Return the range of each colour.
 * @param {Range} range
 * @param {boolean} isFixed
 */
function legend({ least, most, ...fitted }, isFixed) {
  const limits = isFixed ? fixedLimits() : fitted.limits;
  const written = (/** @type {number} */ nats) => (isFixed ? decimal(inUnit(nats), 0) : surprisal(nats));
  const ranges = [isFixed ? 0 : least, ...limits].map((from, level) => {
    const to = limits[level] ?? (isFixed ? null : most);
    return h(
      "span",
      { class: `h${colourOf(level, limits.length + 1)}` },
      to === null ? `${written(from)}+` : `${written(from)}–${written(to)}`,
    );
  });
  const ties = !isFixed && limits.length + 1 < CLASSES ? " Equal surprisals have one colour." : "";
  return [
    `${unit()}:\u00a0`,
    ...ranges,
    " ",
    h("span", { class: "unknown" }, "unknown"),
    " ",
    h("span", { class: "unscored" }, "not scored"),
    h("span", { class: "quiet" }, ties),
  ];
}

/**
 * @param {string} name
 * @param {Token[][]} lines
 * @param {() => number[]} limits
 */
function mapOf(name, lines, limits) {
  return heatMap(name, lines, {
    kind: ({ nats, isKnown }) => {
      const steps = limits();
      const kind = nats === null ? "unscored" : `h${colourOf(levelOf(nats, steps), steps.length + 1)}`;
      return isKnown ? kind : `${kind} unknown`;
    },
    label: (token) => `${spoken(token.text)}: ${surprisalOf(token)}`,
    details: detailsOf,
    join: joined,
  });
}

/**
 * Join the tokens of a letter with its marks: surprisals add up, and there is no rank.
 * @param {Token[]} parts
 */
function joined(parts) {
  const [first, last] = /** @type {[Token, Token]} */ ([parts[0], parts.at(-1)]);
  return {
    isKnown: parts.every(({ isKnown }) => isKnown),
    nats: parts.some(({ nats }) => nats === null) ? null : sumOf(parts, ({ nats }) => nats ?? 0),
    rank: null,
    expected: [],
    span: /** @type {Span} */ ([first.span[0], last.span[1]]),
  };
}

/** @param {Token} token */
function surprisalOf({ nats, isKnown }) {
  const value = nats === null ? "not scored" : `${surprisal(nats)} ${unit()}`;
  return isKnown ? value : `${value}, unknown to the model`;
}

/**
 * @param {Token} token
 * @returns {(Node | string)[]}
 */
function detailsOf(token) {
  const { nats, rank, isKnown } = token;
  const value = live(() => (nats === null ? "not scored" : `${surprisal(nats)} ${unit()}`));
  const parts = [
    rank === null ? "" : ` · rank ${rank}`,
    isKnown ? "" : " · unknown to the model",
    token.expected.length ? " · expected: " : "",
  ];
  const ofParts = (token.parts ?? []).flatMap((part) => [" · ", ...detailsOf(part)]);
  return [bdi(spoken(token.text)), ": ", value, parts.join(""), ...likeliest(token.expected), ...ofParts];
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
function segmentsTable(title, lines, model) {
  /** @type {import("./unit_table.js").Column<Token>[]} */
  const columns = [
    {
      title: "Text",
      value: ({ text }) => text,
      show: ({ text, isKnown }) => h("span", {}, bdi(spoken(text)), isKnown ? "" : " (unknown)"),
    },
    { title: "Code points", value: ({ text }) => codePoints(text), order: ({ text }) => text },
    { title: "Start", value: ({ span }) => span[0] },
    ofNats("Surprisal", ({ nats }) => nats),
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

/**
 * Make a column of surprisals, which are in nats in the file.
 * @template Row
 * @param {string} title
 * @param {(row: Row) => number | null} value
 * @returns {import("./unit_table.js").Column<Row>}
 */
function ofNats(title, value, write = surprisal) {
  return {
    title: `${title}, nats`,
    shownTitle: () => `${title}, ${unit()}`,
    value,
    show: (row) => () => write(value(row)),
  };
}

/** @param {Scored} model */
function lineTable({ name, score }) {
  /** @type {import("./unit_table.js").Column<LineScore>[]} */
  const columns = [
    { title: "Line", value: ({ number }) => number },
    { title: "Characters", value: ({ n_chars }) => n_chars },
    { title: "Tokens", value: ({ n_tokens }) => n_tokens },
    ofNats("Surprisal", ({ nats }) => nats),
  ];
  return unitTable(`Lines of ${name}`, columns, score.lines ?? [], `${name}-lines.csv`);
}

function perCharacter() {
  return `${capital(unit())} per character`;
}

/** @param {ScoreResponse} score */
function totals(score) {
  /** @type {[LiveText, LiveText][]} */
  const pairs = [
    ["Total", () => `${surprisal(score.nats)} ${unit()}`],
    [perCharacter, () => perChar(score.bits_per_char, score.unknown_char_share)],
    ["Perplexity", perplexity(score.perplexity, score.unknown_char_share)],
    ["Mean per token", () => marked(`${loss(score.mean_surprisal)} ${unit()}`, score.mean_surprisal, score.unknown_char_share)],
    ["Scored tokens", decimal(score.n_scored, 0)],
    ["Unknown characters", decimal(score.unknown_chars, 0)],
  ];
  if (score.method !== "causal") pairs.push(["Method", "pseudo-log-likelihood"]);
  return h(
    "dl",
    { class: "facts" },
    ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/**
 * @param {Scored} one
 * @param {Scored} two
 */
function comparedTotals(one, two) {
  const count = (/** @type {number | null} */ value) => decimal(value, 0);
  /** @type {[LiveText, (scored: Scored) => number | null, (value: number | null, unknownShare?: number | null) => string][]} */
  const numbers = [
    [() => `Total without line ends, ${unit()}`, ({ score }) => score.nats, surprisal],
    [perCharacter, ({ score }) => score.bits_per_char, perChar],
    ["Perplexity", ({ score }) => score.perplexity, perplexity],
    ["Scored tokens", ({ score }) => score.n_scored, count],
    ["Unknown characters", ({ score }) => score.unknown_chars, count],
  ];
  const unknown = [one, two].flatMap(({ score }, index) => unknownNotice("AB".charAt(index), score) ?? []);
  const rows = numbers.map(([name, number, write]) => {
    const [first, second] = [number(one), number(two)];
    const difference = first === null || second === null ? null : second - first;
    const [ofOne, ofTwo] = [one, two].map(({ score }) => score.unknown_char_share);
    return [name, () => write(first, ofOne), () => write(second, ofTwo), () => signed(difference, write)];
  });
  return h(
    "div",
    {},
    table("Totals of both models", ["Number", `A: ${one.title}`, `B: ${two.title}`, "B − A"], rows),
    ...unknown.map(notice),
    ...[one, two].flatMap(({ score }) => score.notes).map((note) => notice(noteText(note))),
    ...(one.score.method === two.score.method ? [] : [notice(NO_PLL)]),
  );
}

/**
 * Return a warning about a model that does not know too many characters of a text to compare it; null for another.
 * @param {string} name
 * @param {Pick<ScoreResponse, "unknown_chars" | "unknown_char_share" | "n_chars">} score
 */
export function unknownNotice(name, { unknown_chars, unknown_char_share, n_chars }) {
  if ((unknown_char_share ?? 0) <= TABLES.max_unknown_char_share) return null;
  const share = `${decimal(unknown_chars, 0)} of the ${decimal(n_chars, 0)} characters`;
  return `${name} does not know ${share}: its surprisals, and the differences from it, are too low to compare.`;
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
  const first = rangeNats(ends.first, characterNats(one.chars.length, one.tokens));
  const second = rangeNats(ends.second, characterNats(two.chars.length, two.tokens));
  let [index, at] = [0, 0];
  return (one.score.lines ?? []).map(({ span: [start, end] }) => {
    /** @type {Change[]} */
    const line = [];
    for (; at < end && index < ends.first.length; index++) {
      const after = ends.first[index] ?? end;
      if (at >= start) {
        // not in a blank line or at the end of one
        const text = covered(one.chars, at, after);
        line.push({ text, name: text, before: "", first: first[index] ?? NaN, second: second[index] ?? NaN });
      }
      at = after;
    }
    return line;
  });
}

/** @param {Change} change */
function difference({ first, second }) {
  return second - first;
}

/** @param {number} value */
function known(value) {
  return isNaN(value) ? null : value;
}

/**
 * Show the difference of each character; not by colour alone: more has a line below, less a line above.
 * @param {Change[][]} lines
 * @param {string} models
 */
function changeMap(lines, models) {
  const changes = lines.flat();
  const sizes = Float64Array.from(changes, (change) => Math.abs(difference(change))).filter((size) => !isNaN(size));
  const limits = quantileLimits(sizes.sort(), SIZES, 0);
  const most = sizes.at(-1) ?? 0;
  const kind = (/** @type {number} */ value) => {
    const level = levelOf(Math.abs(value), limits);
    return level ? `${value > 0 ? "more" : "less"}${level + SIZES - 1 - limits.length}` : "same";
  };
  const ends = [...limits, most];
  const steps = limits.map((limit, index) => ({ limit, to: ends[index + 1] ?? most }));
  const range = (/** @type {string} */ sign, /** @type {{limit: number, to: number}} */ { limit, to }) =>
    h("span", { class: kind(sign === "+" ? limit : -limit) }, () => `${sign}${surprisal(limit)}–${surprisal(to)}`);
  const described = (/** @type {Change} */ change) =>
    isNaN(difference(change)) ? "not scored" : `${signed(difference(change), surprisal)} ${unit()}`;
  return [
    h("h3", {}, "Difference of each character, B − A"),
    h("p", { class: "quiet" }, ON_DIFFERENCES),
    h(
      "p",
      { class: "scale" },
      () => `${unit()}:\u00a0`,
      ...steps.toReversed().map((step) => range("−", step)),
      h("span", { class: "same" }, () => (limits.length ? `less than ${surprisal(limits[0] ?? 0)}` : "0")),
      ...steps.map((step) => range("+", step)),
      " ",
      h("span", { class: "unscored" }, "not scored"),
    ),
    ...heatMap("Differences of characters", lines, {
      kind: (change) => (isNaN(difference(change)) ? "unscored" : kind(difference(change))),
      label: (change) => `${spoken(change.text)}: ${described(change)}`,
      details: (change) =>
        [change, ...(change.parts ?? [])].flatMap((one, index) => [
          index ? " · " : "",
          bdi(spoken(one.text)),
          live(() => `: ${described(one)} · A ${surprisal(known(one.first))}, B ${surprisal(known(one.second))} ${unit()}`),
        ]),
      join: (parts) => ({ first: sumOf(parts, ({ first }) => first), second: sumOf(parts, ({ second }) => second) }),
    }).elements,
    unitTable(
      "Differences of characters",
      [
        { title: "Text", value: ({ text }) => text, show: ({ text }) => bdi(spoken(text)) },
        { title: "Code points", value: ({ text }) => codePoints(text), order: ({ text }) => text },
        ofNats("A", ({ first }) => known(first)),
        ofNats("B", ({ second }) => known(second)),
        ofNats("B − A", (change) => known(difference(change)), (nats) => signed(nats, surprisal)),
      ],
      changes,
      `${models}-differences.csv`,
    ),
  ];
}
