/** Comparison of two to ten runs or groups: verdicts, curves over each other, metrics, and settings that differ. */

import { read } from "./api.js";
import { announce, bdi, failure, h, section, table } from "./elements.js";
import { capital, decimal, loss, perChar, percent, perplexity, signed, told } from "./numbers.js";
import { TrainingCurves } from "./run_curves.js";
import { TABLES } from "./tables.js";
import { unit } from "./units.js";

/** @import { LiveText } from "./elements.js" */
/** @import { Against, Comparison, GroupStatus, RunStatus } from "./records.js" */

const LETTERS = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].slice(0, TABLES.max_compared);
/** Stands before the id of a group in the address of a comparison. */
export const GROUP_MARK = "~";
const MOST_SETTINGS = 20;
/** What the server says of the difference of two means, before and after its numbers. */
const DIFFERENCE = /: \S+ (?:bits|nats) per \w+ \(95 % interval .*?\)/;

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} names ids, separated by commas; those of groups have a mark
 */
export async function showComparison(main, signal, names) {
  const compared = names.split(",").slice(0, LETTERS.length).map((name) => {
    const isGroup = name.startsWith(GROUP_MARK);
    const id = isGroup ? name.slice(GROUP_MARK.length) : name;
    return { id, path: `/${isGroup ? "groups" : "runs"}/${id}` };
  });
  /** @type {(RunStatus | GroupStatus)[]} */
  const statuses = await Promise.all(compared.map(({ path }) => read(path, signal)));
  const curves = new TrainingCurves(
    compared.map(({ path }, index) => {
      const letter = LETTERS[index] ?? "";
      return {
        path,
        train: { name: `${letter} train`, label: letter, style: `run${index}` },
        validation: { name: `${letter} validation`, label: `${letter} val.`, style: `run${index} dashed` },
      };
    }),
    signal,
  );
  const verdicts = h("div");
  const results = h("div");
  main.append(
    h("div", { class: "bar" }, copyButton()),
    h(
      "ul",
      { class: "legend" },
      ...compared.map(({ id, path }, index) =>
        h(
          "li",
          {},
          h("b", { class: `run${index}` }, LETTERS[index] ?? ""),
          " ",
          h("a", { href: `#${path}` }, bdi(statuses[index]?.label ?? id)),
          h("small", {}, id),
        ),
      ),
    ),
    verdicts,
    section("Curves", h("p", { class: "quiet" }, "Solid: training loss. Dashed: validation loss."), curves.element),
    results,
  );
  try {
    /** @type {Comparison} */
    const comparison = await read(`/compare?runs=${compared.map(({ id }) => id).join(",")}`, signal);
    verdicts.append(verdictsOf(comparison));
    results.append(...resultsOf(comparison));
  } catch (error) {
    if (!signal.aborted) results.append(section("Metrics", failure(error)));
  }
}

/** Make a button that copies the address of the page, or shows it selected where the browser does not copy. */
function copyButton() {
  const button = h("button", { type: "button", onclick: () => copy() }, "Copy link");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      announce("Link copied");
      button.textContent = "Link copied";
    } catch {
      const address = h("input", { readonly: true, value: location.href, "aria-label": "Link of this page" });
      button.replaceWith(address); // without HTTPS, a page may not write to the clipboard
      address.select();
    }
  };
  return button;
}

/** @param {Comparison} comparison */
function verdictsOf({ runs, against, tolerance }) {
  return section(
    "Verdict",
    ...against.flatMap((one, index) => [
      h("p", {}, h("b", {}, `A against ${LETTERS[index + 1]}: `), () => [`${verdict(one, tolerance)}.`, ...notesOf(one)].join(" ")),
      one.is_on_one_text
        ? null
        : h("p", {}, h("code", {}, `mt compare ${runs[0]?.run_id} ${one.run_id} --path FILE`), " measures both on one text."),
    ]),
  );
}

/** @param {Comparison} comparison */
function resultsOf(comparison) {
  const { runs } = comparison;
  /** @type {[LiveText, (run: Comparison["runs"][number]) => string][]} */
  const figures = [
    ["Model", (run) => run.model],
    ["Objective", (run) => run.objective],
    ["Parameters", (run) => decimal(run.params, 0)],
    [() => `Loss, ${unit()} per token`, (run) => loss(run.loss)],
    ["Perplexity", (run) => perplexity(run.perplexity)],
    [() => `${capital(unit())} per character`, (run) => perChar(run.bits_per_char)],
    [() => `${capital(unit())} per character of the n-gram`, (run) => perChar(run.ngram_bits_per_char)],
    ["Accuracy, top 1", (run) => percent(run.top1_accuracy)],
    ["Accuracy, top 5", (run) => percent(run.top5_accuracy)],
    ["Tokens per second", (run) => decimal(run.tokens_per_second, 0)],
  ];
  const rows = figures.map(([name, value]) => [name, ...runs.map((run) => () => value(run))]);
  const letter = (/** @type {number} */ index) => LETTERS[index] ?? "";
  return [
    section(
      "Metrics",
      table("Metrics on the test split", ["On the test split", ...runs.map((_, index) => letter(index))], rows),
    ),
    section("Settings", settingsOf(comparison)),
  ];
}

/**
 * Make one table of the settings that differ; a setting that a run does not have is empty.
 * @param {Comparison} comparison
 */
function settingsOf({ runs, against }) {
  const differing = against.map(({ differences }) => new Map(differences.map((one) => [one.field, one])));
  const firsts = new Map(against.flatMap(({ differences }) => differences.map(({ field, run }) => [field, run])));
  if (firsts.size === 0) return h("p", {}, "Their settings are equal.");
  const rows = [...firsts].map(([field, first]) => [
    h("code", {}, field),
    setting(first),
    ...differing.map((one) => setting(one.get(field)?.other ?? first)),
  ]);
  const head = ["Setting", ...runs.map((_, index) => LETTERS[index] ?? "")];
  const shown = h("div");
  const show = (/** @type {number} */ count) =>
    shown.replaceChildren(
      settingsTable(head, rows.slice(0, count)),
      ...(count < rows.length
        ? [h("button", { type: "button", onclick: () => show(rows.length) }, `Show all ${rows.length} settings`)]
        : []),
    );
  show(MOST_SETTINGS);
  return shown;
}

/**
 * @param {string[]} head
 * @param {Node[][]} rows
 */
function settingsTable(head, rows) {
  const made = table("Settings that differ", head, rows);
  made.classList.add("differences");
  return made;
}

/** @param {string} value JSON, or a text without quotes; null where the run does not have the setting */
function setting(value) {
  return bdi(value === "null" ? "" : value);
}

/**
 * Return the result of a comparison in a few words.
 * @param {Against} one
 * @param {number} tolerance
 */
export function verdict(one, tolerance) {
  if (one.rise === null) return "not comparable";
  const name = one.basis === "loss" ? "loss" : "loss per character";
  if (one.verdict === "equal") return `equal: same ${name} within rounding`;
  const [rise, low, high] = [one.rise, one.interval?.low ?? 0, one.interval?.high ?? 0].map((share) =>
    signed(share, (value) => percent(value, 2)),
  );
  const change = `${name} ${rise}` + (one.interval === null ? "" : ` (95 % interval ${low} to ${high})`);
  if (one.is_regression) return `✗ worse: ${change}, more than ${percent(tolerance, 2)}`;
  const within = one.verdict === "worse" && one.rise <= tolerance ? " within the tolerance" : "";
  return `${one.verdict.replaceAll("_", " ")}${within}: ${change}`;
}

/**
 * Return the notes on a comparison, with the difference of means in the unit of the page.
 * @param {Against} one
 */
function notesOf({ basis, notes, over_seeds }) {
  if (over_seeds === null) return notes.map(told);
  const [write, per] = basis === "loss" ? [loss, "token"] : [perChar, "character"];
  const [difference, low, high] = [over_seeds.difference, over_seeds.low, over_seeds.high].map((value) => signed(value, write));
  const figures = `: ${difference} ${unit()} per ${per} (95 % interval ${low} to ${high})`;
  return notes.map((note) => told(note.replace(DIFFERENCE, "\0"))).map((note) => note.replace("\0", figures));
}
