/** The development of a run over its checkpoints: curves with intervals, and the ages at which it acquires words. */

import { Chart } from "./curves.js";
import { bdi, h, labelled, section, table } from "./elements.js";
import { decimal, loss, perChar, percent, surprisal } from "./numbers.js";
import { picture } from "./pictures.js";
import { TABLES, counted, filled } from "./tables.js";
import { natsOf, unit } from "./units.js";

/** @import { Development, DevelopmentRow, FileRecord } from "./records.js" */
/** @import { Axis } from "./curves.js" */
/** @typedef {"words" | "tokens" | "step"} AxisName */

/** @type {Record<DevelopmentRow["measure"], {write: (value: number | null) => string, y: Axis}>} */
const MEASURES = {
  accuracy: { write: percent, y: { name: "accuracy", unit: "share" } },
  loss: { write: loss, y: { name: "loss", per: "token" } },
  bits_per_char: { write: perChar, y: { name: "loss", per: "character" } },
};
const MAX_LINES = 10;

/**
 * @param {string} artifact
 * @param {Development} development
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 */
export function developmentResults(artifact, development, files, signal) {
  const figure = (/** @type {keyof typeof TABLES.pictures} */ name) =>
    picture(artifact, files, name, `${TABLES.pictures[name]} Its axes have the units.`, signal);
  return [
    development.curves.length
      ? section(
          "Over the checkpoints",
          ...curves(development),
          checkpoints(development),
          figure("accuracy"),
          figure("loss"),
        )
      : null,
    development.acquisitions.length
      ? section(
          "Ages of words",
          h("p", { class: "quiet" }, TABLES.ages),
          ages(development),
          ...notesOf(development).map((text) => h("p", {}, bdi(text))),
          figure("words"),
        )
      : null,
  ].filter((part) => part !== null);
}

/** @param {Development} development */
function curves({ run_id, points, curves }) {
  const places = new Map(points.map((point) => [point.step, point]));
  const axes = /** @type {AxisName[]} */ (["words", "tokens", "step"]).filter((axis) =>
    points.every((point) => point[axis] !== null),
  );
  const axis = h(
    "select",
    { id: "axis", onchange: draw },
    ...axes.map((name) => h("option", { value: name }, name === "step" ? "steps" : name)),
  );
  const isLog = h("input", { id: "log", type: "checkbox", checked: true, onchange: draw });
  const measures = [...new Set(curves.map(({ measure }) => measure))];
  const charts = measures.map((measure) => {
    const names = [...new Set(curves.filter((row) => row.measure === measure).map(({ name }) => name))];
    const { y } = MEASURES[measure];
    const title = `Development, ${y.per ? `${y.name} per ${y.per}` : y.name}`;
    return { measure, names, chart: new Chart({ title, x: { name: "words" }, y }) };
  });
  function draw() {
    const name = /** @type {AxisName} */ (axis.value);
    for (const { measure, names, chart } of charts) {
      chart.set({ x: { name: name === "step" ? "steps" : name, isLog: isLog.checked } });
      chart.show(
        names.slice(0, MAX_LINES).map((one, index) => {
          const rows = curves.filter((row) => row.measure === measure && row.name === one);
          return lineOf(rows, index, (step) => places.get(step)?.[name] ?? step, isLog.checked, run_id);
        }),
      );
    }
  }
  draw();
  return [
    h(
      "div",
      { class: "bar" },
      labelled("Axis", axis),
      labelled("Logarithmic", isLog),
    ),
    ...charts.flatMap(({ measure, names, chart }) => [
      h("h3", {}, () => titleOf(measure)),
      names.length > MAX_LINES
        ? h("p", { class: "quiet" }, `The first ${MAX_LINES} of ${names.length} curves; all are in development.csv.`)
        : null,
      chart.element,
    ]),
  ].filter((part) => part !== null);
}

/**
 * Make a line with its intervals, and with links to the checkpoints.
 * @param {DevelopmentRow[]} rows
 * @param {number} index
 * @param {(step: number) => number} placeOf
 * @param {boolean} isLog the axis has no place for 0
 * @param {string} run
 */
function lineOf(rows, index, placeOf, isLog, run) {
  const points = (/** @type {(row: DevelopmentRow) => number | null} */ value) =>
    rows.flatMap((row) => {
      const found = value(row);
      if (found === null) return [];
      return [/** @type {[number, number]} */ ([placeOf(row.step), row.measure === "bits_per_char" ? natsOf(found) : found])];
    });
  const mean = points((row) => row.value);
  const low = points((row) => row.low);
  const name = rows[0]?.name ?? "";
  const link = (/** @type {number} */ step) => ({
    x: placeOf(step),
    label: `Checkpoint at step ${step}`,
    href: `#/text/${run}@${step}`,
  });
  const marks = index === 0 ? rows.map(({ step }) => link(step)).filter(({ x }) => x > 0 || !isLog) : [];
  return {
    name,
    label: name.slice(0, 12),
    style: `run${index}`,
    points: mean,
    ...(low.length ? { band: { mean, low, high: points((row) => row.high) } } : {}),
    marks,
  };
}

/** @param {Development} development */
function checkpoints({ run_id, points, curves }) {
  const shown = curves.filter(({ level }) => level === "battery" || level === "split");
  const columns = [...new Map(shown.map((row) => [`${row.measure} ${row.name}`, row])).values()];
  const count = (/** @type {number | null} */ value) => decimal(value, 0);
  return table(
    `Checkpoints. ${TABLES.curves}`,
    [
      "Step",
      "Epoch",
      "Words",
      "Tokens",
      ...columns.map(({ measure, name }) => (measure === "accuracy" ? name : () => `${name}: ${titleOf(measure)}`)),
    ],
    points.map((point) => [
      h("a", { href: `#/text/${run_id}@${point.step}` }, count(point.step)),
      count(point.epoch),
      count(point.words),
      count(point.tokens),
      ...columns.map(({ measure, name }) => () =>
        valueOf(shown.find((row) => row.step === point.step && row.measure === measure && row.name === name)),
      ),
    ]),
  );
}

/** @param {DevelopmentRow | undefined} row */
function valueOf(row) {
  if (!row) return "–";
  const text = MEASURES[row.measure].write;
  return text(row.value) + (row.low === null || row.high === null ? "" : ` (${text(row.low)} to ${text(row.high)})`);
}

/**
 * Show an age with its interval, if the development has one.
 * @param {number | null} age
 * @param {number | null} low
 * @param {number | null} high
 * @param {number} digits
 */
function within(age, low, high, digits) {
  const interval = low === null || high === null ? "" : ` (${decimal(low, digits)} to ${decimal(high, digits)})`;
  return decimal(age, digits) + interval;
}

/** @param {Development} development */
function ages({ acquisitions }) {
  const sorted = [...acquisitions].sort(
    (one, two) => (one.age_steps ?? Infinity) - (two.age_steps ?? Infinity) || one.word.localeCompare(two.word),
  );
  return table(
    "Ages of words, the youngest first",
    ["Word", "Contexts", "Per million", "Age (steps)", "Age (words)", () => `From ${unit()}`, () => `To ${unit()}`, "R²", "Why no age"],
    sorted.map((one) => [
      bdi(one.word),
      one.n_contexts,
      decimal(one.frequency_per_million, 1),
      within(one.age_steps, one.age_steps_low, one.age_steps_high, 1),
      within(one.age_words, one.age_words_low, one.age_words_high, 0),
      () => surprisal(one.start_nats),
      () => surprisal(one.end_nats),
      decimal(one.r_squared, 2),
      one.reason === null ? "" : TABLES.misfits[one.reason],
    ]),
  );
}

/**
 * Return what is to be known about the numbers. Why words have no age stands in their table.
 * @param {Development} development
 */
export function notesOf({ acquisitions, missing_words, notes, n_unscored }) {
  const ages = acquisitions.map(({ age_steps }) => age_steps).filter((age) => age !== null);
  const middle = ages.length ? `, at the median at step ${decimal(median(ages), 0)}` : "";
  return [
    `${decimal(ages.length, 0)} of ${counted(acquisitions.length, "word")} have an age of acquisition${middle}`,
    ages.length ? TABLES.age_intervals : "",
    missing_words.length ? `Not in the text: ${missing_words.join(", ")}` : "",
    ...notes.map((note) => note.replace(/\.$/, "")),
    n_unscored ? `${counted(n_unscored, "occurrence")} of words without a surprisal are left out` : "",
  ].filter(Boolean);
}

/** @param {number[]} values */
function median(values) {
  const sorted = values.toSorted((one, two) => one - two);
  const [low = 0, high = 0] = [(sorted.length - 1) >> 1, sorted.length >> 1].map((at) => sorted[at]);
  return (low + high) / 2;
}

/** @param {DevelopmentRow["measure"]} measure */
function titleOf(measure) {
  return filled(TABLES.curve_measures[measure], { unit: unit() });
}
