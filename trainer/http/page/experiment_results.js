/** The results of a completed experiment: the matrix, its tree and checks, perplexities, trainings and batteries. */

import { bdi, h, labelled, section, table } from "./elements.js";
import { download } from "./files.js";
import { heatTable } from "./heat_table.js";
import { languageTree } from "./language_tree.js";
import { decimal, loss, meanOf, percent, perplexity } from "./numbers.js";
import { picture } from "./pictures.js";
import { folded, recordTable } from "./record_table.js";
import { TABLES, counted, filled } from "./tables.js";
import { trainingCurves } from "./training_curves.js";
import { unit } from "./units.js";

/** @import { BatteryRow, Correlation, ExperimentResult, FileRecord, ModelTables, ScoringMode, ValidityCheck } from "./records.js" */

/**
 * @param {string} artifact
 * @param {ExperimentResult} result
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 */
export function experimentResults(artifact, result, files, signal) {
  const figure = (/** @type {string} */ name, /** @type {string} */ text) =>
    picture(artifact, files, name, text, signal);
  const chosen = h("div");
  const tables = choice(
    "tables",
    result.models.map(({ model, kind }) => `${model} on ${TABLES.kinds[kind]}`),
    draw,
  );
  const mode = choice(
    "mode",
    result.modes.map((name) => TABLES.modes[name]),
    draw,
  );
  function draw() {
    const [found, scored] = [result.models[Number(tables.value)], result.modes[Number(mode.value)]];
    if (found && scored) chosen.replaceChildren(h("p", { class: "quiet" }, seedsNote(result, found.model)), ...tablesOf(result, found, scored), csvLinks(found));
  }
  /** @param {ModelTables} found */
  function csvLinks({ model, kind }) {
    const folder =
      result.models[0]?.model === model && result.models[0].kind === kind
        ? ""
        : `tables/${model}-${kind.replaceAll("_", "-")}/`;
    const names = ["matrix", "asymmetry", "listeners"].map((name) => `${folder}${name}.csv`);
    return h("p", {}, "Files:", ...names.flatMap((name) => [" ", download(artifact, name)]));
  }
  draw();
  const { validity, correlations, batteries } = result;
  const checks = validity.checks.map((check) =>
    h(
      "li",
      {},
      h("b", {}, `${check.passed ? "✓ passed" : "✗ failed"}, ${check.name.replaceAll("_", "-")}: `),
      () => described(check, validity.checks),
    ),
  );
  return [
    section(
      "Excess surprisal",
      h("p", { class: "quiet" }, () => excessNote(result)),
      h(
        "div",
        { class: "bar" },
        labelled("Model and text", tables),
        labelled("Positions", mode),
      ),
      chosen,
    ),
    section(
      "Pictures of the report",
      h("p", { class: "quiet" }, "They show the first model and text, in the first mode."),
      figure("heat_map", "Heat map of the excess cross-entropy: the numbers of the matrix. Its scale has the unit."),
    ),
    section(
      "Validity",
      checks.length
        ? h("ul", {}, ...checks)
        : h("p", {}, "Nothing to check: the plan has no two branches with two languages."),
    ),
    correlations.length ? section("Human ratings", correlationTable(correlations)) : null,
    batteries.length
      ? section("Batteries", ...batteryTables(result), figure("batteries", "Heat map of accuracies on batteries."))
      : null,
    result.battery_ids.length + result.development_ids.length
      ? section(
          "Jobs",
          jobLinks("Batteries and differences between runs", result.battery_ids),
          jobLinks("Developments over checkpoints", result.development_ids),
        )
      : null,
    section(
      "Trainings",
      trainingCurves(result, signal),
      folded("All trainings", () => trainings(result)),
      figure("curves", "Best validation loss and area under the training loss of each training; their axes have the units."),
    ),
    section(
      "Other tables",
      folded("Mean and standard deviation over seeds", () =>
        recordTable(() => `Seeds; ${unit()} per character`, result.seed_rows, [
          "model",
          "kind",
          "listener_language",
          "text_language",
          "scoring_mode",
          "cross_entropy_mean",
          "cross_entropy_sd",
          "excess_mean",
          "excess_sd",
        ]),
      ),
      result.replacements.length
        ? folded("Characters unknown to a listener, and the ones read instead", () =>
            recordTable("Replaced characters", result.replacements, [
              "character",
              "replacement",
              "model",
              "listener_language",
              "seed",
              "distance",
              "count",
            ]),
          )
        : h("p", {}, "No model met a character that it does not know."),
    ),
  ].filter((part) => part !== null);
}

/**
 * Return the tables of one model on one kind of text in one mode.
 * @param {ExperimentResult} result
 * @param {ModelTables} found
 * @param {ScoringMode} mode
 */
function tablesOf(result, { model, kind, tables, tree, gap }, mode) {
  const rows = tables.matrix.filter((row) => row.scoring_mode === mode);
  const pairs = new Map(rows.map((row) => [`${row.listener_language} ${row.text_language}`, row]));
  const seeds = new Map(
    result.seed_rows
      .filter((row) => row.model === model && row.kind === kind && row.scoring_mode === mode)
      .map((row) => [`${row.listener_language} ${row.text_language}`, row]),
  );
  const most = Math.max(0, ...rows.map((row) => row.excess_cross_entropy));
  const least = Math.min(0, ...rows.map((row) => row.excess_cross_entropy));
  const texts = [...new Set(rows.map((row) => row.text_language))];
  const matrix = heatTable(
    () => `Excess cross-entropy in ${unit()} per character: a row per model, a column per language of the text`,
    ["Listener", ...texts],
    result.languages.map((listener) => ({
      title: bdi(listener),
      cells: texts.map((text) => {
        const row = pairs.get(`${listener} ${text}`);
        if (!row) return { text: "–", share: null, details: () => `${listener} on ${text}: none` };
        const sd = seeds.get(`${listener} ${text}`)?.excess_sd ?? null;
        const interval = () =>
          listener === text
            ? "its own model"
            : `95 % interval ${loss(row.interval_low)} to ${loss(row.interval_high)}`;
        const spread = () => (sd === null || listener === text ? "" : `, deviation over seeds ${loss(sd)}`);
        return {
          text: () => loss(row.excess_cross_entropy),
          share: most > least ? (row.excess_cross_entropy - least) / (most - least) : 0,
          details: () =>
            `${listener} on ${text}: ${loss(row.excess_cross_entropy)} ${unit()} per character, ${interval()}${spread()};` +
            ` cross-entropy ${loss(row.cross_entropy)}, own model ${loss(row.native_cross_entropy)}`,
          isOwn: listener === text,
        };
      }),
    })),
    () => `from ${loss(least)} to ${loss(most)} ${unit()} per character`,
  );
  const inMode = (/** @type {{scoring_mode: ScoringMode}} */ row) => row.scoring_mode === mode;
  return [
    matrix,
    folded("The matrix as a table, with intervals", () =>
      recordTable(() => `Excess cross-entropy, ${unit()} per character`, rows, [
        "listener_language",
        "text_language",
        "excess_cross_entropy",
        "interval_low",
        "interval_high",
        "cross_entropy",
        "native_cross_entropy",
        "fraction_scored",
        "n_scored",
      ]),
    ),
    h("h3", {}, "Perplexity per character"),
    perplexities(result, model, kind, mode),
    gap === null
      ? null
      : h(
          "p",
          {},
          () =>
            `Mean distance within branches ${loss(gap.within)}, across branches ${loss(gap.across)}: gap ${loss(gap.gap)} ${unit()} per character.`,
        ),
    folded("Asymmetry: both directions of each pair", () =>
      recordTable(() => `Asymmetry, ${unit()} per character`, tables.asymmetry.filter(inMode), [
        "language_a",
        "language_b",
        "excess_a_on_b",
        "excess_b_on_a",
        "asymmetry",
        "interval_low",
        "interval_high",
      ]),
    ),
    folded("Differences between listeners of one text", () =>
      recordTable(() => `Listeners, ${unit()} per character`, tables.listeners.filter(inMode), [
        "text_language",
        "listener_a",
        "listener_b",
        "difference",
        "interval_low",
        "interval_high",
      ]),
    ),
    ...(tree.length
      ? [
          h("h3", {}, "Tree of the languages"),
          languageTree(`Tree of the languages: ${model} on ${TABLES.kinds[kind]}`, tree, leafOf(result)),
        ]
      : []),
    folded("Joins of the tree, the nearest first", () =>
      recordTable(() => `Joins; heights are distances in ${unit()} per character`, tree, ["left", "right", "height"]),
    ),
  ].filter((part) => part !== null);
}

/**
 * Return a function that names a language with its branch.
 * @param {ExperimentResult} result
 */
function leafOf({ branches, controls }) {
  return (/** @type {string} */ language) => {
    const branch = controls.includes(language) ? "control" : branches[language];
    return branch ? `${language} (${branch})` : language;
  };
}

/**
 * @param {ExperimentResult} result
 * @param {string} model
 * @param {string} kind
 * @param {ScoringMode} mode
 */
function perplexities(result, model, kind, mode) {
  const rows = result.perplexities.filter(
    (row) => row.model === model && row.kind === kind && row.scoring_mode === mode,
  );
  const texts = [...new Set(rows.map((row) => row.text_language))];
  return table(
    () => `Perplexity per character, and the area under the training loss in ${unit()} · steps`,
    ["Listener", ...texts, () => `Area, ${unit()} · steps`],
    result.languages.map((listener) => {
      const areas = result.curves.filter((row) => row.model === model && row.language === listener && row.auc !== null);
      const cells = texts.map((text) => {
        const row = rows.find((one) => one.listener_language === listener && one.text_language === text);
        if (!row) return "–";
        const deviation = row.perplexity_sd === null ? "" : `\u00a0±\u00a0${perplexity(row.perplexity_sd)}`;
        return perplexity(row.perplexity) + deviation;
      });
      return [bdi(listener), ...cells, () => meanOf(areas.map((row) => row.auc), loss).replaceAll(" ", "\u00a0")];
    }),
  );
}

/** @param {ExperimentResult} result */
function trainings(result) {
  return recordTable(
    () => `Trainings; losses in ${unit()} per token, area in ${unit()} · steps`,
    result.curves,
    [
      "run_id",
      "model",
      "language",
      "seed",
      "phase",
      "steps",
      "early_stopped",
      "best_val_loss",
      "test_loss",
      "test_perplexity",
      "bits_per_char",
      "auc",
    ],
    ({ run_id }) => h("a", { href: `#/runs/${run_id}` }, run_id),
  );
}

/**
 * Return a table of accuracies for each model: languages of the model by batteries.
 * @param {ExperimentResult} result
 */
function batteryTables({ batteries, seeds }) {
  const { measure } = TABLES.battery_options;
  const shown = batteries.filter((row) => row.level === "battery" && row.measure === measure);
  const several = Number(seeds.length > 1);
  const means = filled(TABLES.battery_seeds[several] ?? "", { seeds: counted(seeds.length, "seed") });
  const title = (/** @type {BatteryRow} */ row) => `${row.battery_language}: ${row.battery}`;
  const models = [...new Set(shown.map(({ model }) => model))];
  return [
    h(
      "p",
      { class: "quiet" },
      `Accuracies by the ${TABLES.measures[measure]}, without ties. ${means} 95 % intervals ${TABLES.battery_intervals[several]}. Parts and other measures: batteries.csv.`,
    ),
    ...models.flatMap((model) => {
      const rows = shown.filter((row) => row.model === model);
      const columns = [...new Set(rows.map(title))];
      const languages = [...new Set(rows.map((row) => row.model_language))];
      return [
        h("h3", {}, bdi(model)),
        heatTable(
          `Accuracy of model ${model}; rows are languages of the model, columns are batteries after their language`,
          ["Model of", ...columns],
          languages.map((language) => ({
            title: bdi(language),
            cells: columns.map((column) => {
              const row = rows.find((one) => one.model_language === language && title(one) === column);
              const range =
                row?.low == null || row.high === null
                  ? "no interval"
                  : `95 % interval ${percent(row.low)} to ${percent(row.high)}`;
              return {
                text: percent(row?.accuracy ?? null),
                share: row?.accuracy ?? null,
                details: () => `${language} on ${column}: ${percent(row?.accuracy ?? null)}, ${range}, ${row?.n_items ?? 0} items`,
                isOwn: row !== undefined && language === row.battery_language,
              };
            }),
          })),
          "from 0 % to 100 %",
        ),
      ];
    }),
  ];
}

/** @param {Correlation[]} correlations */
function correlationTable(correlations) {
  const rows = [...correlations].sort((one, two) => Number(two.is_primary) - Number(one.is_primary));
  return table(
    "Correlations of the excess with human ratings; p of exploratory tests is adjusted for their number (Holm)",
    ["Test", "Model", "Text", "Positions", "Statistic", "Pairs", "Languages", "n", "r", "p"],
    rows.map((row) => [
      row.is_primary ? "primary" : "exploratory",
      bdi(row.model),
      TABLES.kinds[row.kind],
      row.mode,
      TABLES.statistics[row.statistic],
      TABLES.pairs[row.pairs],
      row.n_languages,
      row.n_pairs,
      decimal(row.r),
      decimal(row.is_primary ? row.p : row.p_holm, 4),
    ]),
  );
}

/**
 * @param {string} title
 * @param {string[]} ids
 */
function jobLinks(title, ids) {
  if (ids.length === 0) return null;
  const links = ids.map((id) => h("li", {}, h("a", { href: `#/batteries/${id}` }, h("code", {}, id))));
  return h("div", {}, h("h3", {}, title), h("ul", {}, ...links));
}

/**
 * Describe a check with its numbers.
 * @param {ValidityCheck} check
 * @param {ValidityCheck[]} checks
 */
export function described({ name, gap, joins_branches_first, message }, checks) {
  if (gap === null) return message;
  const heldOut = checks.find((one) => one.name === "held_out")?.gap ?? null;
  const [control, nearest] = Object.entries(gap.control_distances).sort(([, one], [, two]) => one - two)[0] ?? ["", 0];
  return filled(TABLES.checks[name], {
    unit: `${unit()} per character`,
    within: loss(gap.within),
    across: loss(gap.across),
    gap: loss(gap.gap),
    held_out: heldOut === null ? "gap" : loss(heldOut.gap),
    control,
    nearest: loss(nearest),
    joins: TABLES.joins[Number(joins_branches_first)] ?? "",
  });
}

/**
 * Say what the intervals of a model cover.
 * @param {Pick<ExperimentResult, "seeds">} result
 * @param {string} model
 */
export function seedsNote({ seeds }, model) {
  if (model === TABLES.trigram) return TABLES.no_seed;
  return seeds.length > 1 ? filled(TABLES.several_seeds, { seeds: counted(seeds.length, "seed") }) : TABLES.one_seed;
}

/** @param {ExperimentResult} result */
function excessNote({ common_characters }) {
  const characters =
    common_characters === null
      ? ""
      : ` Characters that every model knows (${common_characters.length}): ${common_characters.map((one) => (one === " " ? "␣" : one)).join(" ")}`;
  return (
    `The excess is the cross-entropy of a listener's model on a text, above that of the text's own model, in ${unit()} per` +
    ` character.${characters}`
  );
}

/**
 * Make a field with a choice.
 * @param {string} id
 * @param {string[]} names
 * @param {() => void} changed
 */
function choice(id, names, changed) {
  return h("select", { id, onchange: changed }, ...names.map((name, index) => h("option", { value: index }, name)));
}
