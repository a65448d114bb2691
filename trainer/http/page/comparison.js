/** Comparison of two to four runs: verdicts, curves over each other, metrics, and settings that differ. */

import { read } from "./api.js";
import { Chart, LOSS } from "./curves.js";
import { bdi, failure, h, section, table } from "./elements.js";
import { decimal, percent } from "./numbers.js";

/** @import { Against, Comparison, Curve, GroupCurve, GroupStatus, RunStatus } from "./records.js" */

const LETTERS = ["A", "B", "C", "D"];
/** Stands before the id of a group in the address of a comparison. */
export const GROUP_MARK = "~";

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} names ids, separated by commas; those of groups have a mark
 */
export async function showComparison(main, signal, names) {
  const ids = names.split(",").slice(0, LETTERS.length);
  const found = await Promise.all(
    ids.map((id) => (id.startsWith(GROUP_MARK) ? readGroup(id.slice(1), signal) : readRun(id, signal))),
  );
  const chart = new Chart(LOSS);
  chart.show(
    found.flatMap(({ curve }, index) => [
      { name: `${LETTERS[index]} train`, label: LETTERS[index] ?? "", style: `run${index}`, points: curve.train },
      {
        name: `${LETTERS[index]} validation`,
        label: `${LETTERS[index]} val.`,
        style: `run${index} dashed`,
        points: curve.validation,
      },
    ]),
  );
  const verdicts = h("div");
  const results = h("div");
  main.append(
    h(
      "ul",
      { class: "legend" },
      ...found.map(({ id, label, address }, index) =>
        h(
          "li",
          {},
          h("b", { class: `run${index}` }, LETTERS[index] ?? ""),
          " ",
          h("a", { href: address }, bdi(label ?? id)),
          h("small", {}, id),
        ),
      ),
    ),
    verdicts,
    section("Curves", h("p", { class: "quiet" }, "Solid: training loss. Dashed: validation loss."), chart.element),
    results,
  );
  try {
    /** @type {Comparison} */
    const comparison = await read(`/compare?runs=${found.map(({ id }) => id).join(",")}`, signal);
    verdicts.append(verdictsOf(comparison));
    results.append(...resultsOf(comparison));
  } catch (error) {
    if (!signal.aborted) results.append(section("Metrics", failure(error)));
  }
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function readRun(id, signal) {
  /** @type {[RunStatus, Curve]} */
  const [{ label }, curve] = await Promise.all([read(`/runs/${id}`, signal), read(`/runs/${id}/curve`, signal)]);
  return { id, label, curve, address: `#/runs/${id}` };
}

/**
 * Read a group of runs, with the means of their losses.
 * @param {string} id
 * @param {AbortSignal} signal
 */
async function readGroup(id, signal) {
  /** @type {[GroupStatus, GroupCurve]} */
  const [{ label }, { train, validation }] = await Promise.all([
    read(`/groups/${id}`, signal),
    read(`/groups/${id}/curve`, signal),
  ]);
  return { id, label, curve: { train: train.mean, validation: validation.mean }, address: `#/groups/${id}` };
}

/** @param {Comparison} comparison */
function verdictsOf({ runs, against }) {
  return section(
    "Verdict",
    ...against.flatMap((one, index) => [
      h("p", {}, h("b", {}, `A against ${LETTERS[index + 1]}: `), [verdict(one), ...one.notes].join(" ")),
      one.is_on_one_text
        ? null
        : h("p", {}, h("code", {}, `mt compare ${runs[0]?.run_id} ${one.run_id} --path FILE`), " measures both on one text."),
    ]),
  );
}

/** @param {Comparison} comparison */
function resultsOf({ runs, against }) {
  /** @type {[string, (run: Comparison["runs"][number]) => string][]} */
  const figures = [
    ["Model", (run) => run.model],
    ["Objective", (run) => run.objective],
    ["Parameters", (run) => decimal(run.params, 0)],
    ["Loss, nats per token", (run) => decimal(run.loss)],
    ["Perplexity", (run) => decimal(run.perplexity, 2)],
    ["Bits per character", (run) => decimal(run.bits_per_char)],
    ["Accuracy, top 1", (run) => percent(run.top1_accuracy)],
    ["Accuracy, top 5", (run) => percent(run.top5_accuracy)],
    ["Tokens per second", (run) => decimal(run.tokens_per_second, 0)],
  ];
  const rows = figures.map(([name, value]) => [name, ...runs.map(value)]);
  const letter = (/** @type {number} */ index) => LETTERS[index] ?? "";
  return [
    section(
      "Metrics",
      table("Metrics on the test split", ["On the test split", ...runs.map((_, index) => letter(index))], rows),
    ),
    section(
      "Settings",
      ...against.flatMap((one, index) => [
        h("h3", {}, `A and ${letter(index + 1)}`),
        one.differences.length
          ? table(
              `Settings of A and ${letter(index + 1)} that differ`,
              ["Setting", "A", letter(index + 1)],
              one.differences.map(({ field, run, other }) => [h("code", {}, field), setting(run), setting(other)]),
            )
          : h("p", {}, "Their settings are equal."),
      ]),
    ),
  ];
}

/** @param {string} value JSON; the setting of another architecture is null, and empty here */
function setting(value) {
  return bdi(value === "null" ? "" : value);
}

const SAID = {
  better: "better",
  worse: "worse",
  equal: "equal",
  no_clear_difference: "no clear difference",
  no_interval: "no interval",
  not_comparable: "not comparable",
};

/** @param {Against} one */
function verdict(one) {
  const said = one.is_regression ? "regression" : SAID[one.verdict];
  if (one.rise === null) return `${said}.`;
  const name = one.basis === "loss" ? "loss" : "bits per character";
  if (one.verdict === "equal") return `${said}: same ${name} within rounding.`;
  const range = one.interval;
  const interval = range === null ? "" : ` (95 % interval ${signed(range.low)} to ${signed(range.high)})`;
  return `${said}: ${name} ${signed(one.rise)}${interval}.`;
}

/** @param {number} share */
function signed(share) {
  return `${share > 0 ? "+" : ""}${percent(share, 2)}`;
}
