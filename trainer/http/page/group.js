/** One group of runs over seeds: its runs, the spread of their numbers, and the band of their curves. */

import { read } from "./api.js";
import { bdi, h, section, setTitle, table } from "./elements.js";
import { capital, loss, perChar, percent, perplexity, told } from "./numbers.js";
import { groupCurves } from "./run_curves.js";
import { originLinks, startedFrom } from "./run_relatives.js";
import { badge, hasEnded, repeat } from "./states.js";
import { unit } from "./units.js";

/** @import { GroupStatus, RunRequest, Spread } from "./records.js" */

/** @type {[name: string, title: () => string, write: (value: number | null) => string][]} */
const NUMBERS = [
  ["best_val_loss", () => `Validation, best: ${unit()} per token`, loss],
  ["best_val_bits_per_char", () => `Validation, best: ${unit()} per character`, perChar],
  ["test_loss", () => `Test: ${unit()} per token`, loss],
  ["bits_per_char", () => `Test: ${unit()} per character`, perChar],
  ["test_perplexity", () => "Test: perplexity", perplexity],
];

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} groupId
 */
export async function showGroup(main, signal, groupId) {
  const base = `/groups/${groupId}`;
  const origin = h("p", {});
  const facts = h("div");
  const curves = groupCurves(groupId, signal);
  main.append(
    h("p", {}, h("code", {}, groupId)),
    origin,
    section("Runs", facts),
    section("Curves", h("p", { class: "quiet" }, "Means of the runs, in bands from the lowest to the highest number."), curves.element),
    startedFrom(groupId, signal),
  );
  const load = async () => {
    /** @type {GroupStatus} */
    const group = await read(base, signal);
    setTitle(group.label ?? "Group");
    if (!facts.contains(document.activeElement)) facts.replaceChildren(...factsOf(group));
    return group;
  };
  let group = await load();
  repeat(async () => {
    if (group.members.every(hasEnded)) return;
    curves.reload();
    group = await load().catch(() => group); // the next one may succeed
  }, signal);
  /** @type {RunRequest} */
  const request = await read(`/runs/${group.members[0]?.run_id}/request`, signal);
  origin.append(...originLinks({ ...request, resumed_from_run_id: null }));
}

/** @param {GroupStatus} group */
function factsOf(group) {
  const numbers = NUMBERS.flatMap(([name, title, write]) => {
    const found = group.numbers[name];
    return found ? [[title, ...spread(found, write)]] : [];
  });
  return [
    h("p", {}, badge({ ...group, reachable: true }), " ", () => told(group.message)),
    numbers.length
      ? table(`Numbers of ${group.n_completed} completed runs`, ["", "Mean", "Deviation", "95 % interval", "Range"], numbers)
      : null,
    table(
      "Runs",
      [
        "Run",
        "Status",
        "Progress",
        () => `Validation, best: ${unit()} per token`,
        () => `Test: ${unit()} per token`,
        () => `${capital(unit())} per character`,
      ],
      group.members.map((run) => [
        h("a", { href: `#/runs/${run.run_id}` }, bdi(`seed ${run.seed}`)),
        badge(run),
        percent(run.progress / 100, 0),
        () => loss(run.best_val_loss),
        () => loss(run.test_loss),
        () => perChar(run.bits_per_char, run.unknown_char_share),
      ]),
    ),
  ].filter((part) => part !== null);
}

/**
 * @param {Spread} found
 * @param {(value: number | null) => string} write
 */
function spread({ mean, deviation, low, high, minimum, maximum }, write) {
  const range = (/** @type {number | null} */ from, /** @type {number | null} */ to) => () =>
    from === null || to === null ? "–" : `${write(from)} to ${write(to)}`;
  return [() => write(mean), () => write(deviation), range(low, high), range(minimum, maximum)];
}
