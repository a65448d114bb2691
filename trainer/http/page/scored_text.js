/** Tokens, words and characters of a scored text: characters are code points, and the server has normalized them. */

import { characterNats } from "./alignment.js";

/** @import { ScoreResponse, Span, WordScore } from "./records.js" */
/** @typedef {"tokens" | "words" | "characters"} Segments what a text is divided into */

/**
 * A token, word or character of the text; `text` is what it covers.
 * @typedef {{text: string, name: string, isKnown: boolean, nats: number | null, rank: number | null,
 *   expected: [string, number][], before: string, span: Span, parts?: Token[]}} Token `before`: characters since the one
 *   before, in none; `parts`: those of a letter with its marks
 */

/** @type {[string, number][]} */
const NONE = [];
const SIGNS = new Map([
  ["\n", "↵\n"],
  [" ", "·\u200b"],
  ["\t", "→\u200b"],
  ["\u00a0", "⍽"],
  ["\u3000", "□"],
]);
/** Characters that may belong to the letter before them. */
const JOINING = /[\p{M}\u200c\u200d\u0e33\u0eb3\u1100-\u11ff\u{1f1e6}-\u{1f1ff}\u{1f3fb}-\u{1f3ff}]/u;
/** Marks over or under two letters. */
const TIE_BARS = /[\u035c-\u0362\u1dcd\u1dfc]/u;
const NAMES = new Map([
  ["\n", "line end"],
  [" ", "space"],
  ["\t", "tab"],
  ["\u00a0", "no-break space"],
]);

/**
 * Return the code points of a text as the server has normalized it: in NFC, and in lower case if its words are, also that of
 * Turkish.
 * @param {string} text
 * @param {WordScore[]} words
 */
export function normalized(text, words) {
  const chars = [...text.normalize("NFC")];
  const fits = (/** @type {string[]} */ found) => words.every(({ text, span }) => covered(found, ...span) === text);
  if (fits(chars)) return chars;
  const lowered = (/** @type {string[]} */ letters) => [
    ...letters
      .map((char) => char.toLowerCase())
      .join("")
      .normalize("NFC"),
  ];
  const turkic = chars.map((char) => (char === "I" ? "ı" : char === "İ" ? "i" : char));
  return [lowered(chars), lowered(turkic)].find(fits) ?? chars;
}

/**
 * Return the text of a span; most spans of tokens have one character, and most between tokens have none.
 * @param {string[]} chars
 * @param {number} start
 * @param {number} end
 */
export function covered(chars, start, end) {
  if (end - start === 1) return chars[start] ?? "";
  return start < end ? chars.slice(start, end).join("") : "";
}

/**
 * Return the segments of each line of a text.
 * @param {string[]} chars the normalized text
 * @param {ScoreResponse} score
 * @param {Segments} segments
 * @param {Token[][]} tokens of each line
 */
export function segmentLines(chars, score, segments, tokens) {
  if (segments === "words") return wordLines(chars, score, tokens);
  return segments === "characters" ? characterLines(chars, score, tokens) : tokens;
}

/**
 * Return the words of each line, with the surprisals of the server.
 * @param {string[]} chars
 * @param {ScoreResponse} score
 * @param {Token[][]} tokens
 * @returns {Token[][]}
 */
function wordLines(chars, score, tokens) {
  const isUnknown = unknownCharacters(chars.length, tokens);
  const words = score.words ?? [];
  let index = 0;
  return (score.lines ?? []).map(({ span: [start, after] }) => {
    /** @type {Token[]} */
    const line = [];
    for (let end = start; (words[index]?.span[1] ?? Infinity) <= after; index++) {
      const { text, span, surprisal } = /** @type {WordScore} */ (words[index]);
      const isKnown = !isUnknown.subarray(...span).includes(1);
      const before = covered(chars, end, span[0]);
      line.push({ text, name: text, isKnown, nats: surprisal, rank: null, expected: NONE, before, span });
      end = span[1];
    }
    return line;
  });
}

/**
 * Return the characters of each line, each with its share of the surprisal of its token.
 * @param {string[]} chars
 * @param {ScoreResponse} score
 * @param {Token[][]} tokens
 * @returns {Token[][]}
 */
function characterLines(chars, score, tokens) {
  const nats = characterNats(chars.length, tokens);
  const isUnknown = unknownCharacters(chars.length, tokens);
  return (score.lines ?? []).map(({ span: [start, end] }) =>
    chars.slice(start, end).map((char, offset) => {
      const at = start + offset;
      const value = nats[at] ?? NaN;
      return new Character(char, isNaN(value) ? null : value, at, !isUnknown[at]);
    }),
  );
}

/** A unit of one character, which needs half the memory of other units. */
class Character {
  /**
   * @param {string} text
   * @param {number | null} nats
   * @param {number} at
   * @param {boolean} isKnown
   */
  constructor(text, nats, at, isKnown) {
    this.text = text;
    this.nats = nats;
    this.isKnown = isKnown;
    this._at = at;
  }

  get name() {
    return this.text;
  }

  get rank() {
    return null;
  }

  get expected() {
    return NONE;
  }

  get before() {
    return "";
  }

  get span() {
    return /** @type {Span} */ ([this._at, this._at + 1]);
  }
}

/**
 * Return a 1 for each character that is unknown to the model.
 * @param {number} count
 * @param {Token[][]} lines
 */
function unknownCharacters(count, lines) {
  const found = new Uint8Array(count);
  for (const tokens of lines) for (const { isKnown, span } of tokens) if (!isKnown) found.fill(1, ...span);
  return found;
}

/**
 * Return the tokens of each line of a text.
 * @param {string[]} chars the normalized text
 * @param {ScoreResponse} score
 * @returns {Token[][]}
 */
export function tokenLines(chars, score) {
  const spans = score.char_spans ?? [];
  let index = 0;
  return (score.lines ?? []).map((line) => {
    let end = line.span[0];
    const first = index;
    index += line.n_tokens;
    const tokens = spans.slice(first, index).map((span, offset) => {
      const at = first + offset;
      const [start, after] = span;
      const text = covered(chars, start, after);
      const name = score.tokens?.[at] ?? "";
      const before = covered(chars, end, start);
      end = Math.max(end, after);
      return {
        text,
        name,
        isKnown: name !== score.unknown_token || text === name,
        nats: score.surprisal?.[at] ?? null,
        rank: score.rank?.[at] ?? null,
        expected: score.topk?.[at] ?? NONE,
        before,
        span,
      };
    });
    return joinBytes(tokens);
  });
}

/**
 * Join the bytes of a character, of which only the last one covers text: surprisals add up, and there is no rank.
 * @param {Token[]} tokens
 */
function joinBytes(tokens) {
  /** @type {Token[]} */
  const joined = [];
  /** @type {Token[]} */
  let bytes = [];
  for (const token of tokens) {
    const isPart = !token.text && token.name.startsWith("<0x");
    if (!isPart && bytes.length === 0) {
      joined.push(token);
      continue;
    }
    bytes.push(token);
    if (isPart) continue;
    const { before, expected } = bytes[0] ?? token;
    const name = bytes.map((one) => one.name).join("");
    const scored = bytes.flatMap((one) => (one.nats === null ? [] : [one.nats]));
    const nats = scored.length === bytes.length ? scored.reduce((sum, one) => sum + one, 0) : null;
    joined.push({ ...token, before, expected, name, nats, rank: null });
    bytes = [];
  }
  return joined;
}

/**
 * Group the units of a line into letters: a unit that begins inside a letter belongs to the unit before it.
 *
 * Letters are the grapheme clusters of Unicode, and two letters below a tie bar.
 * @template {{text: string, before: string}} Piece
 * @param {Piece[]} line
 */
export function letterGroups(line) {
  const text = line.map(({ before, text }) => before + text).join("");
  const starts = JOINING.test(text) ? letterStarts(text) : null;
  /** @type {Piece[][]} */
  const groups = [];
  let at = 0;
  for (const unit of line) {
    const start = at + unit.before.length;
    at = start + unit.text.length;
    const isInside = starts !== null && unit.text !== "" && unit.before === "" && !starts.has(start);
    if (isInside && groups.length > 0) groups.at(-1)?.push(unit);
    else groups.push([unit]);
  }
  return groups;
}

/** @param {string} text */
function letterStarts(text) {
  const segments = [...new Intl.Segmenter("en", { granularity: "grapheme" }).segment(text)];
  const isTied = (/** @type {number} */ index) => TIE_BARS.test(text[index - 1] ?? "");
  return new Set(segments.map(({ index }) => index).filter((index) => !isTied(index)));
}

/**
 * Put signs in place of white space, and a circle under a combining mark that begins a token.
 * @param {string} text
 */
export function visible(text) {
  const signs = text.replace(/\s/gu, (char) => SIGNS.get(char) ?? "␣");
  return /^\p{M}/u.test(signs) ? `◌${signs}` : signs;
}

/**
 * Name white space, and add the code points of signs that a reader may not tell apart.
 * @param {string} text
 */
export function spoken(text) {
  const known = NAMES.get(text);
  if (known) return known;
  return /^[\p{L}\p{N}\p{P}\p{S}]+$/u.test(text) ? text : `${visible(text)} (${codePoints(text)})`;
}

/** @param {string} text */
export function codePoints(text) {
  return [...text]
    .map((char) => `U+${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`)
    .join(" ");
}
