/** What an experiment adds to the view of a job: the states of its cells, and its results. */

import { read } from "./api.js";
import { bdi, h, section, table } from "./elements.js";
import { fileAddress } from "./files.js";
import { foldedSection } from "./record_table.js";
import { badge } from "./states.js";
import { trainingCurves } from "./training_curves.js";

/** @import { Additions } from "./job.js" */
/** @import { Cell, CellKind, ExperimentResult, ExperimentStatus } from "./records.js" */

/** @type {Record<CellKind, string>} */
const KINDS = { train: "training", score: "texts", battery: "batteries" };

/** @type {Additions<ExperimentStatus>} */
export const EXPERIMENT = {
  cancelled: "Its unfinished runs end too. Finished runs stay.",
  own: "cells",
  parts: ({ status, cells }) => {
    const tables = () => h("div", {}, ...cellTables(cells));
    return status === "completed" ? foldedSection("Cells", tables) : section("Cells", tables());
  },
  open: 2, // the matrix and its checks
  verdict: ({ is_valid }) => {
    if (is_valid === null) return null;
    return h("span", { class: `badge ${is_valid ? "completed" : "failed"}` }, is_valid ? "checks passed" : "checks failed");
  },
  async results(artifact, signal) {
    /** @type {ExperimentResult} */
    const result = await read(fileAddress(artifact, "result.json"), signal);
    return section("Curves of trainings", trainingCurves(result, signal));
  },
};

/**
 * Return a table for each model, with a row for each language and a column for each seed.
 * @param {Cell[]} cells
 */
function cellTables(cells) {
  const models = [...new Set(cells.map(({ model }) => model))];
  const seeds = [...new Set(cells.map(({ seed }) => seed))];
  /** @type {Map<string, Cell[]>} */
  const found = new Map();
  const key = (/** @type {Pick<Cell, "model" | "language" | "seed">} */ cell) =>
    `${cell.model} ${cell.language} ${cell.seed}`;
  for (const cell of cells) found.set(key(cell), [...(found.get(key(cell)) ?? []), cell]);
  return models.flatMap((model) => {
    const languages = [...new Set(cells.filter((cell) => cell.model === model).map(({ language }) => language))];
    return [
      h("h3", {}, bdi(model)),
      table(
        `Cells of model ${model}`,
        ["Language", ...seeds.map((seed) => `Seed ${seed}`)],
        languages.map((language) => [
          bdi(language),
          ...seeds.map((seed) => states(found.get(key({ model, language, seed })) ?? [])),
        ]),
      ),
    ];
  });
}

/** @param {Cell[]} cells of one model, language and seed */
function states(cells) {
  return h(
    "span",
    { class: "states" },
    ...cells.map((cell) => {
      const name =
        cell.kind === "train" && cell.run_id !== null
          ? h(
              "a",
              {
                href: `#/runs/${cell.run_id}`,
                "aria-label": `${KINDS.train} of ${cell.model} ${cell.language}, seed ${cell.seed}`,
              },
              KINDS.train,
            )
          : KINDS[cell.kind];
      return h("span", {}, name, " ", badge(cell));
    }),
  );
}
