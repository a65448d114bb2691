/** One experiment: its cells while it runs, and its results. */

import { read } from "./api.js";
import { bdi, failure, h, section, setTitle, table } from "./elements.js";
import { experimentResults } from "./experiment_results.js";
import { cellsOf, verdict } from "./experiments.js";
import { fileAddress } from "./files.js";
import { cancelButton, jobFacts } from "./job_status.js";
import { folded } from "./record_table.js";
import { badge, hasEnded, repeat } from "./states.js";

/** @import { Cell, CellKind, ExperimentResult, ExperimentStatus } from "./records.js" */

/** @type {Record<CellKind, string>} */
const KINDS = { train: "training", score: "texts", battery: "batteries" };

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function showExperiment(main, signal, id) {
  const address = `/experiments/${id}`;
  const artifact = `experiments/${id}`;
  const facts = h("div");
  const cells = h("div");
  const results = h("div");
  const cancel = cancelButton(address, "experiment", "Its unfinished runs end too. Finished runs stay.", load, signal);
  main.append(h("p", {}, h("code", {}, id)), section("Status", facts, cancel), cells, results);
  let isOver = false;
  let drawn = "";

  async function load() {
    /** @type {ExperimentStatus} */
    const experiment = await read(address, signal);
    setTitle(experiment.name);
    facts.replaceChildren(jobFacts(experiment, cellsOf(experiment), [["Validity", verdict(experiment)]]));
    isOver = hasEnded(experiment);
    cancel.hidden = isOver;
    if (experiment.status !== "completed") {
      const state = JSON.stringify(experiment.cells);
      if (state === drawn || cells.contains(document.activeElement)) return;
      drawn = state;
      cells.replaceChildren(section("Cells", ...cellTables(experiment.cells)));
      return;
    }
    cells.replaceChildren(
      section(
        "Cells",
        folded("Runs of all cells", () => h("div", {}, ...cellTables(experiment.cells))),
      ),
    );
    try {
      /** @type {ExperimentResult} */
      const result = await read(fileAddress(artifact, "result.json"), signal);
      results.replaceChildren(...experimentResults(artifact, result, experiment.files, signal));
    } catch (error) {
      if (!signal.aborted) results.replaceChildren(section("Results", failure(error)));
    }
  }

  await load();
  repeat(async () => {
    if (!isOver) await load().catch(() => undefined); // the next one may succeed
  }, signal);
}

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
