/** The characters of a scored text: they count as code points, and the server has normalized them. */

/** @import { ScoreResponse, WordScore } from "./records.js" */

/**
 * A token of the text; `text` is what it covers, `shown` has signs in place of white space.
 * @typedef {{text: string, shown: string, name: string, isKnown: boolean, nats: number | null, rank: number | null,
 *   expected: [string, number][], before: string}} Token `before`: characters since the token before, in no token
 */

const SIGNS = new Map([
  [" ", "·\u200b"],
  ["\t", "→\u200b"],
  ["\u00a0", "⍽"],
  ["\u3000", "□"],
]);
const NAMES = new Map([
  [" ", "space"],
  ["\t", "tab"],
  ["\u00a0", "no-break space"],
]);

/**
 * Return the code points of a text as the server has normalized it: in NFC, and in lower case if its words are.
 * @param {string} text
 * @param {WordScore[]} words
 */
export function normalized(text, words) {
  const chars = [...text.normalize("NFC")];
  const lower = [
    ...chars
      .map((char) => char.toLowerCase())
      .join("")
      .normalize("NFC"),
  ];
  const fits = (/** @type {string[]} */ found) =>
    words.every(({ text, span }) => found.slice(...span).join("") === text);
  return !fits(chars) && fits(lower) ? lower : chars;
}

/**
 * Return the tokens of each line of a text.
 * @param {string} text
 * @param {ScoreResponse} score
 * @returns {Token[][]}
 */
export function tokenLines(text, score) {
  const chars = normalized(text, score.words ?? []);
  const spans = score.char_spans ?? [];
  let index = 0;
  return (score.lines ?? []).map((line) => {
    let end = line.span[0];
    const tokens = spans.slice(index, index + line.n_tokens).map(([start, after]) => {
      const covered = chars.slice(start, after).join("");
      const name = score.tokens?.[index] ?? "";
      const before = chars.slice(end, start).join("");
      end = Math.max(end, after);
      return {
        text: covered,
        shown: visible(covered) || name,
        name,
        isKnown: name !== score.unknown_token || covered === name,
        nats: score.surprisal?.[index] ?? null,
        rank: score.rank?.[index] ?? null,
        expected: score.topk?.[index++] ?? [],
        before: visible(before),
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
    bytes.push(token);
    if (!token.text && token.name.startsWith("<0x")) continue;
    const { before, expected } = bytes[0] ?? token;
    const name = bytes.map((one) => one.name).join("");
    const scored = bytes.flatMap((one) => (one.nats === null ? [] : [one.nats]));
    const nats = scored.length === bytes.length ? scored.reduce((sum, one) => sum + one, 0) : null;
    joined.push(bytes.length > 1 ? { ...token, before, expected, name, nats, rank: null } : token);
    bytes = [];
  }
  return joined;
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

/**
 * Return the class of a surprisal, 0 to 7: whole bits, and 7 for more.
 * @param {number} nats
 */
export function heat(nats) {
  return Math.max(0, Math.min(7, Math.floor(nats / Math.LN2)));
}
