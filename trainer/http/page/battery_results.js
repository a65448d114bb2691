/** The results of a battery: accuracies of runs, controls, regions, differences between runs, and bands over seeds. */

import { bdi, h, labelled, section, table } from "./elements.js";
import { heatTable } from "./heat_table.js";
import { decimal, percent } from "./numbers.js";
import { picture } from "./pictures.js";
import { folded, recordTable } from "./record_table.js";
import { TABLES, counted, filled } from "./tables.js";
import { unit } from "./units.js";

/** @import { Accuracy, BatteryRun, BatterySummary, FileRecord, GroupResult, Measure } from "./records.js" */

/**
 * @param {string} artifact
 * @param {BatterySummary} summary
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 */
export function batteryResults(artifact, summary, files, signal) {
  const titles = titlesOf(summary);
  const pictures = files.map(({ path }) => /^(regions-\d+)\.png$/.exec(path)?.[1]).filter((name) => name !== undefined);
  const notes = notesOf(summary);
  const effects = summary.runs.flatMap((one) =>
    one.effects.map(({ nats, low, high, ...effect }) => ({
      run: titles.get(nameOf(one.run)) ?? "",
      ...effect,
      surprisal: nats,
      surprisal_low: low,
      surprisal_high: high,
    })),
  );
  const formulas = summary.runs.flatMap((one) =>
    one.formulas.map((formula) => ({ run: titles.get(nameOf(one.run)) ?? "", ...formula })),
  );
  return [
    summary.batteries.length ? section("Accuracy", ...accuracies(summary, titles)) : null,
    notes.length ? section("Notes", h("ul", {}, ...notes.map((note) => h("li", {}, bdi(note))))) : null,
    summary.runs.some(({ controls }) => controls.length) ? section("Controls", controls(summary, titles)) : null,
    formulas.length || effects.length
      ? section(
          "Regions",
          recordTable("Shares of items for which a formula holds", formulas, [
            "run",
            "battery",
            "paradigm",
            "formula",
            "n_items",
            "n_undecided",
            "accuracy",
            "low",
            "high",
            "chance",
          ]),
          recordTable(() => `Mean surprisals of regions, and differences, in ${unit()}`, effects, [
            "run",
            "battery",
            "paradigm",
            "what",
            "region",
            "n_items",
            "surprisal",
            "surprisal_low",
            "surprisal_high",
          ]),
          ...pictures.map((name) => picture(artifact, files, name, "Mean surprisal by region; its axis has the unit.", signal)),
        )
      : null,
    summary.comparisons.length ? section("Differences between runs", differences(summary, titles)) : null,
    summary.seeds.length ? section("Over seeds", bands(summary)) : null,
  ].filter((part) => part !== null);
}

/**
 * Return a heat table of groups of items by runs, with a choice of measure and level, and all numbers as a table.
 * @param {BatterySummary} summary
 * @param {Map<string, string>} titles
 */
function accuracies(summary, titles) {
  const groups = summary.runs[0]?.groups ?? [];
  const place = h("div");
  const measured = new Set(
    summary.runs.flatMap((one) => one.groups.flatMap((group) => group.accuracies.map((found) => found.measure))),
  );
  const measure = h(
    "select",
    { id: "measure", onchange: draw },
    ...Object.entries(TABLES.measures)
      .filter(([name]) => measured.has(/** @type {Measure} */ (name)))
      .map(([name, text]) => h("option", { value: name, selected: name === summary.measure }, text)),
  );
  const levels = TABLES.levels.filter((level) => groups.some((group) => group.level === level));
  const level = h(
    "select",
    { id: "level", onchange: draw },
    h("option", { value: "" }, "all"),
    ...levels.map((name) => h("option", {}, name)),
  );
  function draw() {
    const rows = groups
      .map((group, index) => ({ group, index }))
      .filter(({ group }) => !level.value || group.level === level.value);
    place.replaceChildren(
      heatTable(
        `Accuracy by the ${TABLES.measures[/** @type {Measure} */ (measure.value)]}, without ties; a column for each run`,
        ["Items", ...titles.values()],
        rows.map(({ group, index }) => ({
          title: h(
            "span",
            {},
            bdi(titleOf(group)),
            h("small", {}, `${group.level}, ${group.n_items.toLocaleString("en")} items`),
          ),
          cells: summary.runs.map((one) => {
            const found = one.groups[index]?.accuracies.find((accuracy) => accuracy.measure === measure.value);
            return {
              text: percent(found?.accuracy ?? null),
              share: found?.accuracy ?? null,
              details: () => `${titles.get(nameOf(one.run))}, ${titleOf(group)}: ${said(found)}`,
            };
          }),
        })),
        "from 0 % to 100 %",
      ),
    );
  }
  draw();
  const all = () =>
    summary.runs.flatMap((one) =>
      one.groups.flatMap((group) =>
        group.accuracies.map((accuracy) => ({
          run: titles.get(nameOf(one.run)) ?? "",
          items: titleOf(group),
          level: group.level,
          ...accuracy,
          mean_over_paradigms: group.mean_over_paradigms[accuracy.measure] ?? null,
        })),
      ),
    );
  return [
    h("p", { class: "quiet" }, TABLES.intervals),
    h(
      "div",
      { class: "bar" },
      labelled("Measure", measure),
      labelled("Level", level),
    ),
    place,
    folded("All accuracies as a table, with intervals", () =>
      recordTable("Accuracies", all(), [
        "run",
        "items",
        "level",
        "measure",
        "accuracy",
        "low",
        "high",
        "n_right",
        "n_wrong",
        "n_ties",
        "mean_over_paradigms",
      ]),
    ),
  ];
}

/** @param {Accuracy | undefined} accuracy */
function said(accuracy) {
  if (!accuracy) return "not measured";
  const { low, high, n_right, n_wrong, n_ties } = accuracy;
  const counts = `${n_right} right, ${n_wrong} wrong, ${n_ties} ties`;
  if (accuracy.accuracy === null || low === null || high === null) return `only ties (${n_ties})`;
  return `${percent(accuracy.accuracy)}, 95 % interval ${percent(low)} to ${percent(high)}; ${counts}`;
}

/**
 * Return what is to be known about the numbers: sources of the batteries, odd items, and leaked items.
 * @param {BatterySummary} summary
 */
export function notesOf(summary) {
  const titles = titlesOf(summary);
  const where = (/** @type {BatteryRun} */ run) => (summary.runs.length > 1 ? `${titles.get(nameOf(run))}: ` : "");
  const sources = summary.batteries.map(({ name, n_items, source, licence }) =>
    [`${name}: ${counted(n_items, "item")}`, source, licence].filter((part) => part !== null).join(", "),
  );
  const read = summary.batteries.flatMap(({ name, notes }) => notes.map((note) => `${name}: ${note}`));
  const odd = summary.runs.flatMap(({ run, groups }) =>
    groups
      .filter(({ level }) => level === "battery")
      .flatMap((group) =>
        Object.entries(TABLES.odd_items)
          .map(([field, what]) => ({ count: group[/** @type {keyof typeof TABLES.odd_items} */ (field)], what }))
          .filter(({ count }) => count > 0)
          .map(({ count, what }) => `${where(run)}${group.battery}: ${counted(count, "item")} with ${what}`),
      ),
  );
  const leaks = summary.runs.flatMap(({ run, leaks }) =>
    leaks.flatMap(({ battery, whole, ngrams, validation_whole, validation_ngrams, ancestors, unsearched }) => {
      const said = (/** @type {keyof typeof TABLES.leaks} */ part, values = {}) =>
        where(run) + filled(TABLES.leaks[part], { battery, ...values });
      const shares = { whole: percent(whole), ngrams: percent(ngrams) };
      const validation = { whole: percent(validation_whole), ngrams: percent(validation_ngrams) };
      return [
        said("training", { ...shares, ancestors: ancestors.map((name) => filled(TABLES.leaks.ancestor, { name })).join("") }),
        ...(validation_whole || validation_ngrams ? [said("validation", validation)] : []),
        ...unsearched.map((name) => said("unsearched", { name })),
      ];
    }),
  );
  return [...sources, ...read, ...odd, ...leaks, ...summary.notes];
}

/**
 * @param {BatterySummary} summary
 * @param {Map<string, string>} titles
 */
function controls(summary, titles) {
  const range = (/** @type {Accuracy} */ { accuracy, low, high }) =>
    low === null || high === null ? "only ties" : `${percent(accuracy)} (${percent(low)} to ${percent(high)})`;
  return table(
    "Controls: the untrained architecture, and counts of the training text",
    ["Run", "Battery", "Items", "Chance", "Untrained", "Untrained is", "Unigrams", "N-grams"],
    summary.runs.flatMap((one) =>
      one.controls.map((control) => [
        bdi(titles.get(nameOf(one.run)) ?? ""),
        bdi(titleOf({ battery: control.battery, name: control.suite })),
        control.n_items,
        percent(control.chance),
        range(control.untrained),
        control.is_at_chance === null ? "only ties" : control.is_at_chance ? "✓ at chance" : "✗ NOT at chance",
        control.counts === null ? "not counted" : range(control.counts.unigram),
        control.counts === null ? "not counted" : `${control.counts.order}: ${range(control.counts.ngram)}`,
      ]),
    ),
  );
}

/**
 * @param {BatterySummary} summary
 * @param {Map<string, string>} titles
 */
function differences({ comparisons }, titles) {
  return table(
    TABLES.differences,
    ["Items", "First", "Second", "Difference", "95 % interval", "First only", "Second only", "n", "p", "p (Holm)"],
    comparisons.map((one) => [
      bdi(titleOf(one)),
      bdi(titles.get(one.first_run_id) ?? one.first_run_id),
      bdi(titles.get(one.second_run_id) ?? one.second_run_id),
      percent(one.difference),
      `${percent(one.low)} to ${percent(one.high)}`,
      one.n_first_only,
      one.n_second_only,
      one.n_items,
      decimal(one.p, 4),
      decimal(one.p_holm, 4),
    ]),
  );
}

/** @param {BatterySummary} summary */
function bands({ seeds }) {
  return table(
    TABLES.bands,
    ["Items", "Runs", "Mean", "Deviation", "95 % interval"],
    seeds.map((one) => [
      bdi(titleOf(one)),
      one.run_ids.length,
      percent(one.mean),
      percent(one.deviation),
      `${percent(one.low)} to ${percent(one.high)}`,
    ]),
  );
}

/** @param {Pick<GroupResult, "battery" | "name">} group */
function titleOf({ battery, name }) {
  return name ? `${battery}: ${name}` : battery;
}

/** @param {BatteryRun} run */
function nameOf({ run_id, checkpoint }) {
  return checkpoint === null ? run_id : `${run_id}@${checkpoint}`;
}

/**
 * Return the titles of models by name: a unique label, else the name; the step where all are of one run.
 * @param {BatterySummary} summary
 */
export function titlesOf({ runs }) {
  const labels = runs.map(({ run }) => run.label);
  return new Map(
    runs.map(({ run }) => {
      const isUnique = run.label !== null && labels.filter((label) => label === run.label).length === 1;
      const isAlone = runs.every((other) => other.run.run_id === run.run_id);
      const step = run.checkpoint !== null && isAlone ? `step ${run.checkpoint.toLocaleString("en")}` : null;
      return [nameOf(run), step ?? (isUnique ? run.label : null) ?? nameOf(run)];
    }),
  );
}
