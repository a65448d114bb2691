/** A form for a prompt, its continuation, and the likeliest tokens at each step. */

import { ApiError } from "./api.js";
import { FIXED_LIMITS, levelOf } from "./color_scale.js";
import { kept } from "./drafts.js";
import { announce, bdi, failure, h, live } from "./elements.js";
import { heatMap, sumOf } from "./heat_map.js";
import { percent, surprisal } from "./numbers.js";
import { spoken } from "./scored_text.js";
import { answered, modelChoices } from "./surprisal.js";
import { likeliest, notice } from "./surprisal_maps.js";
import { unitTable } from "./unit_table.js";
import { inUnit, unit } from "./units.js";

/** @import { FinishReason, GenerateResponse } from "./records.js" */

/**
 * A generated token with its ln p, and the likeliest tokens with their probabilities.
 * @typedef {{number: number, name: string, text: string, before: string, logprob: number,
 *   expected: [string, number][], parts?: Step[]}} Step `parts`: those of a letter with its marks
 */

const SHOWN = 5;
const MAX_SEED = 4_294_967_295;
/** @type {Record<FinishReason, string>} */
const ENDS = {
  eos: "the end of the line",
  stop_sequence: "a stop sequence",
  max_new_tokens: "the number of tokens",
  context_full: "the end of the model's context",
};

/**
 * @param {string[]} models a run, then its kept checkpoints
 * @param {AbortSignal} signal
 * @param {string | null} label of the run
 * @param {string} [chosen]
 */
export function generationForm(models, signal, label, chosen) {
  const model = h("select", { id: "generator" }, ...modelChoices(models, label));
  model.value = chosen || (models[0] ?? "");
  const prompt = kept(
    h("textarea", { id: "prompt", rows: 2, dir: "auto", spellcheck: false, "aria-describedby": "prompt-help" }),
    "prompt",
  );
  const number = (/** @type {string} */ id, /** @type {import("./elements.js").Attributes} */ attributes) =>
    kept(h("input", { id, type: "number", ...attributes }), id);
  const fields = {
    max_new_tokens: number("max_new_tokens", { min: 1, max: 512, value: 64, required: true }),
    temperature: number("temperature", { min: 0, step: "any", value: 1, required: true }),
    top_k: number("top_k", { min: 0, max: 1_000_000, value: 0, required: true }),
    top_p: number("top_p", { min: 0, max: 1, step: "any", value: 1, required: true }),
    seed: number("seed", { min: 0, max: MAX_SEED, placeholder: "random" }),
  };
  const names = {
    max_new_tokens: "Tokens",
    temperature: "Temperature",
    top_k: "Top k (0: off)",
    top_p: "Top p",
    seed: "Seed",
  };
  const end = kept(
    h(
      "select",
      { id: "stop_on_eos" },
      h("option", { value: "true" }, "at the end of the line"),
      h("option", { value: "false" }, "after all tokens"),
    ),
    "stop_on_eos",
  );
  const button = h("button", {}, "Generate");
  const result = h("div", {});
  const form = h(
    "form",
    { onsubmit: (event) => (event.preventDefault(), generate()) },
    h("div", { class: "options" }, h("div", {}, h("label", { for: "generator" }, "Model"), model)),
    h("label", { for: "prompt" }, "Prompt"),
    prompt,
    h(
      "p",
      { id: "prompt-help", class: "quiet" },
      "The text continues after its last character; an empty prompt starts a new line.",
    ),
    h(
      "div",
      { class: "options" },
      ...Object.entries(fields).map(([name, field]) =>
        h("div", {}, h("label", { for: name }, names[/** @type {keyof typeof fields} */ (name)]), field),
      ),
      h("div", {}, h("label", { for: "stop_on_eos" }, "Ends"), end),
    ),
    button,
    result,
  );
  const generate = async () => {
    if (button.disabled) return;
    button.disabled = true;
    announce("Generating.");
    result.replaceChildren(h("p", {}, h("progress", { "aria-label": "Generating" }), " Generating …"));
    const given = Object.entries(fields).filter(([, { value }]) => value !== "");
    const options = Object.fromEntries(given.map(([name, { value }]) => [name, Number(value)]));
    const text = prompt.value;
    const shown = { top_logprobs: SHOWN, stop_on_eos: end.value === "true" };
    try {
      const { withheld, ...answer } = await generated(model.value, { ...options, ...shown, prompt_text: text }, signal);
      result.replaceChildren(...continuation(text, answer, model.value, withheld));
      result.append(
        h(
          "p",
          { class: "bar" },
          h(
            "button",
            { type: "button", onclick: () => again(prompt, text + (answer.outputs?.[0] ?? "")) },
            "Continue this text",
          ),
          h(
            "button",
            { type: "button", onclick: () => again(fields.seed, String(randomSeed())) },
            "Again with another seed",
          ),
        ),
      );
      announce("The text is generated.");
    } catch (error) {
      if (!signal.aborted) result.replaceChildren(failure(error));
    } finally {
      button.disabled = false;
    }
  };
  const again = (/** @type {HTMLInputElement | HTMLTextAreaElement} */ field, /** @type {string} */ value) => {
    field.value = value;
    field.dispatchEvent(new Event("input")); // to keep it
    button.focus();
    form.requestSubmit();
  };
  return form;
}

function randomSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

/**
 * Generate a text; where the server keeps probabilities back, without them, with its reason as `withheld`.
 * @param {string} model
 * @param {Record<string, unknown>} request
 * @param {AbortSignal} signal
 * @returns {Promise<GenerateResponse & {withheld?: string}>}
 */
async function generated(model, request, signal) {
  try {
    return await answered(model, "generate", request, signal);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 403) throw error;
    /** @type {GenerateResponse} */
    const answer = await answered(model, "generate", { ...request, top_logprobs: 0 }, signal);
    return { ...answer, withheld: error.message };
  }
}

/**
 * Show a continuation with its tokens, or the reason why their probabilities are withheld.
 * @param {string} prompt
 * @param {GenerateResponse} answer
 * @param {string} model
 * @param {string} [withheld]
 * @returns {HTMLElement[]}
 */
function continuation(prompt, answer, model, withheld) {
  const steps = stepsOf(answer);
  const words = h("blockquote", { dir: "auto" }, h("strong", {}, prompt), answer.outputs?.[0] ?? "");
  const end = answer.stop_reason?.[0] ?? "eos";
  const count = withheld ? "" : `${steps.length} tokens, `;
  const text = [
    h(
      "figure",
      {},
      words,
      h("figcaption", {}, `seed ${answer.seed_used}, ${count}ended by ${ENDS[end]}`),
    ),
    ...answer.notes.map((note) => h("p", { class: "quiet" }, note)),
  ];
  if (withheld) return [...text, notice(withheld)];
  return [
    ...text,
    h(
      "p",
      { class: "scale" },
      () => `${unit()}:\u00a0`,
      ...[0, ...FIXED_LIMITS].map((from, level) =>
        h("span", { class: `h${level}` }, level < FIXED_LIMITS.length ? `${from}–${from + 1}` : `${from}+`),
      ),
    ),
    ...heatMap("Generated tokens", linesOf(steps), {
      kind: ({ logprob }) => `h${levelOf(inUnit(-logprob), FIXED_LIMITS)}`,
      label: (step) => `${nameOf(step)}: ${percent(Math.exp(step.logprob))}`,
      details: (step) =>
        (step.parts ?? [step]).flatMap((one, index) => [
          index ? " · " : "",
          bdi(nameOf(one)),
          live(() => `: ${percent(Math.exp(one.logprob))} = ${surprisal(-one.logprob)} ${unit()} · likeliest: `),
          ...likeliest(one.expected),
        ]),
      join: (parts) => ({ logprob: sumOf(parts, ({ logprob }) => logprob), expected: [] }),
    }).elements,
    h("p", { class: "quiet" }, "Probabilities are those of the model at temperature 1, before top k and top p."),
    unitTable(
      "Generated tokens",
      [
        { title: "Step", value: ({ number }) => number },
        { title: "Token", value: nameOf, show: (step) => bdi(nameOf(step)) },
        {
          title: "Probability",
          value: ({ logprob }) => Math.exp(logprob),
          show: ({ logprob }) => percent(Math.exp(logprob)),
        },
        {
          title: "Likeliest",
          value: ({ expected }) => expected.map(([name, share]) => `${name} ${share}`).join("; "),
          show: ({ expected }) => h("span", {}, ...likeliest(expected)),
        },
      ],
      steps,
      `${model}-generated.csv`,
    ),
  ];
}

/** @param {Step} step */
function nameOf({ name, text }) {
  return text ? spoken(text) : name;
}

/**
 * Return the steps of the first continuation; a token without text is shown by its name.
 * @param {GenerateResponse} answer
 * @returns {Step[]}
 */
export function stepsOf({ outputs, tokens, text_offsets, logprobs, top_logprobs }) {
  const chars = [...(outputs?.[0] ?? "")];
  const starts = text_offsets?.[0] ?? [];
  return (tokens?.[0] ?? []).map((name, index) => {
    const text = chars.slice(starts[index], starts[index + 1]).join("");
    /** @type {[string, number][]} */
    const expected = (top_logprobs?.[0]?.[index] ?? []).map(([other, logprob]) => [other, Math.exp(logprob)]);
    return { number: index + 1, name, text, before: "", logprob: logprobs?.[0]?.[index] ?? 0, expected };
  });
}

/**
 * Begin a line after each token that ends one.
 * @param {Step[]} steps
 */
function linesOf(steps) {
  /** @type {Step[][]} */
  const lines = [[]];
  for (const step of steps) {
    lines.at(-1)?.push(step);
    if (step.text.endsWith("\n")) lines.push([]);
  }
  return lines.filter((line) => line.length > 0);
}
