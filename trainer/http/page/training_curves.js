/** The loss curves of an experiment's trainings: a line for each language of a model, over the seeds. */

import { read } from "./api.js";
import { Chart } from "./curves.js";
import { failure, h, labelled } from "./elements.js";
import { folded } from "./record_table.js";

/** @import { Curve, CurveRow, ExperimentResult, GroupCurve, RunStatus } from "./records.js" */

const MAX_LINES = 10;
const MAX_POINTS = 2000;
const SPLITS = /** @type {const} */ (["train", "validation"]);

/**
 * Make details that read the curves when they are opened.
 * @param {ExperimentResult} result
 * @param {AbortSignal} signal
 */
export function trainingCurves({ curves, languages }, signal) {
  return folded("Loss curves", () => {
    const models = [...new Set(curves.map(({ model }) => model))];
    const model = h("select", { id: "curve-model", onchange: load }, ...models.map((name) => h("option", {}, name)));
    const split = h("select", { id: "curve-split", onchange: load }, ...SPLITS.map((name) => h("option", {}, name)));
    const chart = new Chart({
      title: "Loss curves",
      x: { name: "step" },
      y: { name: "loss", per: "token" },
      empty: "Reading …",
    });
    const trouble = h("div");
    const shown = languages.slice(0, MAX_LINES);
    const note = languages.length > MAX_LINES ? ` The first ${MAX_LINES} languages are shown.` : "";

    async function load() {
      try {
        const lines = await Promise.all(
          shown.map(async (language, index) => {
            const rows = curves.filter((row) => row.model === model.value && row.language === language);
            const { mean, band } = await curveOf(rows, split.value === "train" ? "train" : "validation", signal);
            return { name: language, label: language, style: `run${index}`, points: mean, ...(band ? { band } : {}) };
          }),
        );
        chart.show(lines);
      } catch (error) {
        if (!signal.aborted) trouble.replaceChildren(failure(error));
      }
    }
    load();
    return h(
      "div",
      {},
      h("p", { class: "quiet" }, `Means of the runs over seeds, from the lowest to the highest loss.${note}`),
      h(
        "div",
        { class: "bar" },
        labelled("Model", model),
        labelled("Split", split),
      ),
      trouble,
      chart.element,
    );
  });
}

/**
 * Read the curve of a group of runs over seeds, or of the only run.
 * @param {CurveRow[]} rows
 * @param {"train" | "validation"} split
 * @param {AbortSignal} signal
 */
async function curveOf([first], split, signal) {
  if (!first) return { mean: [], band: null };
  /** @type {RunStatus} */
  const { group } = await read(`/runs/${first.run_id}`, signal);
  if (group === null) {
    /** @type {Curve} */
    const curve = await read(`/runs/${first.run_id}/curve?points=${MAX_POINTS}`, signal);
    return { mean: curve[split], band: null };
  }
  /** @type {GroupCurve} */
  const curve = await read(`/groups/${group.group_id}/curve`, signal);
  return { mean: curve[split].mean, band: curve[split] };
}
