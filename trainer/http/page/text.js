/** One model, or two: the surprisals of a text, and generated text. */

import { read } from "./api.js";
import { h, section, setTitle } from "./elements.js";
import { generationForm } from "./generation.js";
import { surprisalForm } from "./surprisal.js";

/** @import { RunFiles, RunStatus } from "./records.js" */

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} argument a run or a model of it, and the model to compare it with
 */
export async function showText(main, signal, argument) {
  const [chosen = "", other = ""] = argument.split(",");
  const [runId = ""] = chosen.split("@");
  /** @type {RunStatus} */
  const run = await read(`/runs/${runId}`, signal);
  /** @type {RunFiles} */
  const { kept } = await read(`/runs/${runId}/files`, signal);
  const models = [...new Set([runId, ...kept.map(({ step }) => `${runId}@${step}`), chosen])];
  const onModels = (/** @type {string} */ first, /** @type {string} */ second) =>
    history.replaceState(null, "", `#/text/${second ? `${first},${second}` : first}`);
  setTitle(run.label === null ? "Text" : `Text: ${run.label}`);
  main.append(
    h("p", {}, h("a", { href: `#/runs/${runId}` }, run.label ?? runId), " ", h("code", {}, runId)),
    section("Surprisal", surprisalForm(models, signal, run.label, { chosen, other, onModels })),
    section(
      "Generation",
      run.objective === "masked_lm"
        ? h("p", {}, "This run was trained with masked_lm and cannot generate text.")
        : generationForm(models, signal, run.label, chosen),
    ),
  );
}
