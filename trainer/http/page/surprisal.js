/** A form for a text, and the heat map of the surprisals of its tokens. */

import { call } from "./api.js";
import { announce, bdi, failure, h, table } from "./elements.js";
import { bits, bitsPerChar, decimal, percent } from "./numbers.js";
import { heat, spoken, tokenLines } from "./scored_text.js";

/** @import { ScoreResponse } from "./records.js" */
/** @import { Token } from "./scored_text.js" */

const MAX_CHARACTERS = 5000;
const WAIT_SECONDS = 30;

/**
 * @param {string[]} models a run, then its kept checkpoints
 * @param {AbortSignal} signal
 */
export function surprisalForm(models, signal) {
  const model = h("select", { id: "model" }, ...models.map((name) => h("option", { value: name }, name)));
  const field = h("textarea", {
    id: "text",
    rows: 4,
    dir: "auto",
    required: true,
    spellcheck: false,
    "aria-describedby": "text-help",
  });
  const button = h("button", {}, "Score");
  const result = h("div", { class: "score" });
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    announce("Scoring the text.");
    try {
      const text = field.value;
      if ([...text].length > MAX_CHARACTERS)
        throw new Error(
          `Enter at most ${MAX_CHARACTERS.toLocaleString("en")} characters here. Score longer texts with mt score.`,
        );
      const score = await scored(model.value, text, signal);
      result.replaceChildren(...heatMap(text, score));
      announce("The text is scored.");
    } catch (error) {
      if (!signal.aborted) result.replaceChildren(failure(error));
    } finally {
      button.disabled = false;
    }
  };
  return h(
    "form",
    { onsubmit: submit },
    ...(models.length > 1 ? [h("label", { for: "model" }, "Model"), model] : []),
    h("label", { for: "text" }, "Text"),
    field,
    h("p", { id: "text-help", class: "quiet" }, "Each line is scored on its own, from its start."),
    button,
    result,
  );
}

/**
 * @param {string} model
 * @param {string} text
 * @param {AbortSignal} signal
 * @returns {Promise<ScoreResponse>}
 */
async function scored(model, text, signal) {
  const body = JSON.stringify({ text, detail_level: "per_char", top_k: 3 });
  let response = await call(`/runs/${model}/score?wait=${WAIT_SECONDS}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    signal,
  });
  while (response.status === 202)
    response = await call(`${response.headers.get("Location")}?wait=${WAIT_SECONDS}`, { signal });
  /** @type {ScoreResponse} */
  const score = await response.json();
  if (score.error) throw new Error(score.error.message);
  return score;
}

/**
 * @param {string} text
 * @param {ScoreResponse} score
 */
function heatMap(text, score) {
  const lines = tokenLines(text, score);
  const details = h("p", { class: "details" }, "Point at a token, or move through the tokens with the arrow keys.");
  const marks = lines.map((tokens) => tokens.map(mark));
  const all = marks.flat();
  const tokens = lines.flat();
  const select = (/** @type {number} */ index) => {
    const [chosen, token] = [all[index], tokens[index]];
    if (!chosen || !token) return;
    for (const other of all) other.tabIndex = -1;
    chosen.tabIndex = 0;
    details.replaceChildren(...detailsOf(token));
    return chosen;
  };
  const onMark = (/** @type {Event} */ event) => {
    if (event.target instanceof HTMLElement) select(all.indexOf(event.target));
  };
  const onKey = (/** @type {Event} */ event) => {
    if (!(event instanceof KeyboardEvent) || !(event.target instanceof HTMLElement)) return;
    const here = all.indexOf(event.target);
    const forwards = getComputedStyle(event.target).direction === "rtl" ? -1 : 1;
    const goal = {
      ArrowRight: here + forwards,
      ArrowLeft: here - forwards,
      ArrowDown: here + 1,
      ArrowUp: here - 1,
      Home: 0,
      End: all.length - 1,
    }[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    select(goal)?.focus();
  };
  const map = h(
    "div",
    {
      class: "heat",
      role: "listbox",
      "aria-label": "Tokens",
      "aria-orientation": "horizontal",
      onfocusin: onMark,
      onmouseover: onMark,
      onkeydown: onKey,
    },
    ...lines.map((line, row) =>
      h(
        "div",
        { dir: "auto", role: "group", "aria-label": `Line ${row + 1}` },
        ...line.flatMap((token, index) => [token.before, marks[row]?.[index] ?? null]),
      ),
    ),
  );
  const first = all[0];
  if (first) first.tabIndex = 0;
  return [
    totals(score),
    h(
      "p",
      { class: "scale", "aria-hidden": "true" },
      "bits: ",
      ...Array.from({ length: 8 }, (_, level) =>
        h("span", { class: `h${level}` }, level < 7 ? `${level}–${level + 1}` : "7+"),
      ),
      " ",
      h("span", { class: "unknown" }, "unknown"),
      " ",
      h("span", { class: "unscored" }, "not scored"),
    ),
    map,
    details,
    h(
      "details",
      {},
      h("summary", {}, "Tokens as a table"),
      table("Tokens", ["Token", "Surprisal, nats", "Bits", "Rank", "Expected"], tokens.map(row)),
    ),
  ];
}

/** @param {Token} token */
function mark(token) {
  const kind = token.nats === null ? "unscored" : `h${heat(token.nats)}`;
  return h(
    "span",
    {
      class: token.isKnown ? kind : `${kind} unknown`,
      role: "option",
      tabindex: -1,
      "aria-label": `${spoken(token.text)}: ${surprisal(token)}`,
    },
    token.shown,
  );
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
    nats === null ? "not scored" : `${decimal(bits(nats))} bits = ${decimal(nats)} nats · rank ${rank ?? "–"}`,
    isKnown ? "" : " · unknown to the model",
    token.expected.length ? " · expected: " : "",
  ];
  return [bdi(spoken(token.text)), `: ${parts.join("")}`, ...expected(token)];
}

/** @param {Token} token */
function expected(token) {
  return token.expected.flatMap(([name, share], index) => [index ? ", " : "", bdi(spoken(name)), ` ${percent(share)}`]);
}

/** @param {Token} token */
function row(token) {
  const name = h("span", {}, bdi(spoken(token.text)), token.isKnown ? "" : " (unknown)");
  return [
    name,
    decimal(token.nats),
    decimal(token.nats === null ? null : bits(token.nats)),
    token.rank ?? "–",
    h("span", {}, ...expected(token)),
  ];
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
