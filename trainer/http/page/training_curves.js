/** The loss curves of an experiment's trainings: a line for each language of a model, over the seeds. */

import { read } from "./api.js";
import { Chart } from "./curves.js";
import { failure, h, labelled } from "./elements.js";
import { bandOf } from "./numbers.js";
import { folded } from "./record_table.js";

/** @import { Curve, CurveRow, ExperimentResult } from "./records.js" */

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
 * Read the curves of trainings, which may be of several groups where an experiment has used them again.
 * @param {CurveRow[]} rows
 * @param {"train" | "validation"} split
 * @param {AbortSignal} signal
 */
async function curveOf(rows, split, signal) {
  /** @type {Curve[]} */
  const curves = await Promise.all(rows.map((row) => read(`/runs/${row.run_id}/curve?points=${MAX_POINTS}`, signal)));
  const band = bandOf(curves.map((curve) => curve[split]));
  return { mean: band.mean, band: rows.length > 1 ? band : null };
}
