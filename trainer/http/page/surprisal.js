/** A form for a text, and the surprisals of one model or of two side by side. */

import { ApiError, endOf, read, send } from "./api.js";
import { kept } from "./drafts.js";
import { announce, failure, h } from "./elements.js";
import { comparedText, scoredText } from "./surprisal_maps.js";

/** @import { RunPage, RunState, RunStatus, ScoreResponse } from "./records.js" */

const MAX_CHARACTERS = 500_000;
/** Of longer texts the expected tokens are left out, which are most of an answer. */
const MAX_EXPLAINED_CHARACTERS = 20_000;
const WAIT_SECONDS = 10;
const MODEL_NAME = "[a-z0-9][a-z0-9_\\-]{0,63}(@[A-Za-z0-9.:]{1,32})?";

/**
 * @param {string[]} models a run, then its kept checkpoints
 * @param {AbortSignal} signal
 * @param {string | null} label of the run
 * @param {{chosen?: string, other?: string, onModels?: (chosen: string, other: string) => void}} start
 */
export function surprisalForm(models, signal, label, { chosen = "", other = "", onModels } = {}) {
  const model = h("select", { id: "model" }, ...modelChoices(models, label));
  model.value = chosen || (models[0] ?? "");
  const second = secondModel(models, signal);
  if (other) second.field.value = other;
  const field = kept(
    h("textarea", {
      id: "text",
      rows: 4,
      dir: "auto",
      required: true,
      spellcheck: false,
      "aria-describedby": "text-help",
    }),
    "text-to-score",
  );
  const button = h("button", {}, "Score");
  const result = h("div", { class: "score" });
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    announce("Scoring the text.");
    const progress = progressOf();
    result.replaceChildren(progress.element);
    try {
      const text = field.value;
      const count = [...text].length;
      if (count > MAX_CHARACTERS)
        throw new Error(
          `Enter at most ${MAX_CHARACTERS.toLocaleString("en")} characters here. Score longer texts with mt score.`,
        );
      const names = [model.value, second.field.value.trim()].filter(Boolean);
      onModels?.(model.value, second.field.value.trim());
      const found = [];
      for (const name of names) {
        const score = await scored(name, text, count, signal);
        const known = name === model.value ? label : await labelOf(score.run_id, signal);
        found.push({ name, title: modelTitle(name, known), score });
      }
      const [one, two] = found;
      if (one) result.replaceChildren(...(two ? comparedText(text, one, two) : scoredText(text, one)));
      announce("The text is scored.");
    } catch (error) {
      if (!signal.aborted) result.replaceChildren(failure(error));
    } finally {
      progress.stop();
      button.disabled = false;
    }
  };
  return h(
    "form",
    { onsubmit: submit },
    h(
      "div",
      { class: "options" },
      h("div", {}, h("label", { for: "model" }, "Model"), model),
      h("div", {}, h("label", { for: "second-model" }, "Compare with"), second.field, second.list),
    ),
    h("label", { for: "text" }, "Text"),
    field,
    h(
      "p",
      { id: "text-help", class: "quiet" },
      "Each line is scored on its own, from its start. A model of streams reads all lines as one text.",
    ),
    button,
    ...(onModels ? [] : [h("p", {}, h("a", { href: `#/text/${models[0]}` }, "Generate text with this run"))]),
    result,
  );
}

/**
 * @param {string} runId
 * @param {AbortSignal} signal
 */
async function labelOf(runId, signal) {
  /** @type {RunStatus} */
  const run = await read(`/runs/${runId}`, signal);
  return run.label;
}

/**
 * Name a model by the label of its run, and the step of its checkpoint.
 * @param {string} model
 * @param {string | null} label
 */
function modelTitle(model, label) {
  return label === null ? model : model.replace(/^[^@]*/, () => label);
}

/**
 * @param {string[]} models of one run
 * @param {string | null} label of the run
 */
export function modelChoices(models, label) {
  return models.map((name) => h("option", { value: name }, modelTitle(name, label)));
}

/**
 * Make a field for the name of a second model, with the checkpoints and the runs that match as suggestions.
 * @param {string[]} models
 * @param {AbortSignal} signal
 */
function secondModel(models, signal) {
  const list = h("datalist", { id: "models" });
  const suggest = (/** @type {[string, string][]} */ found) =>
    list.replaceChildren(...found.map(([name, label]) => h("option", { value: name, label })));
  const own = models.map((name) => /** @type {[string, string]} */ ([name, name]));
  suggest(own);
  let asked = 0;
  const field = h("input", {
    id: "second-model",
    list: "models",
    autocomplete: "off",
    spellcheck: false,
    pattern: MODEL_NAME,
    placeholder: "none, or a run or RUN@step",
    title: "The id of a run, or RUN@step for a checkpoint",
    oninput: async () => {
      const number = ++asked;
      const query = new URLSearchParams({ search: field.value, status: "completed", limit: "20" });
      try {
        /** @type {RunPage} */
        const { runs } = await read(`/runs?${query}`, signal);
        if (number !== asked) return; // an answer to what was typed before
        suggest([
          ...own,
          ...runs.map((run) => /** @type {[string, string]} */ ([run.run_id, run.label ?? run.run_id])),
        ]);
      } catch {
        suggest(own); // any name can be typed
      }
    },
  });
  return { field: kept(field, `second-model:${models[0]}`), list };
}

/** Show that the server works, with the seconds since. */
function progressOf() {
  const seconds = h("span", {}, "Scoring …");
  const begin = Date.now();
  const timer = setInterval(() => {
    seconds.textContent = `Scoring for ${Math.round((Date.now() - begin) / 1000)} s …`;
  }, 1000);
  const element = h("p", {}, h("progress", { "aria-label": "Scoring" }), " ", seconds);
  return { element, stop: () => clearInterval(timer) };
}

/**
 * Score a text; where the server keeps surprisals of single words back, only totals, with its reason as `withheld`.
 * @param {string} model
 * @param {string} text
 * @param {number} count its characters
 * @param {AbortSignal} signal
 * @returns {Promise<ScoreResponse & {withheld?: string}>}
 */
async function scored(model, text, count, signal) {
  const top = count > MAX_EXPLAINED_CHARACTERS ? {} : { top_k: 3 };
  try {
    return await answered(model, "score", { text, detail_level: "per_char", ...top }, signal);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 403) throw error;
    /** @type {ScoreResponse} */
    const score = await answered(model, "score", { text, detail_level: "per_line" }, signal);
    return { ...score, withheld: error.message };
  }
}

/**
 * Send an inference request and wait for its answer.
 * @template {{status: RunState, error: {message: string} | null}} Answer
 * @param {string} model
 * @param {"score" | "generate"} kind
 * @param {Record<string, unknown>} request
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function answered(model, kind, request, signal) {
  return endOf(await send(`/runs/${model}/${kind}?wait=${WAIT_SECONDS}`, request, signal), signal);
}
