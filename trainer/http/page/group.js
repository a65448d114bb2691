/** One group of runs over seeds: its runs, the spread of their numbers, and the band of their curves. */

import { read } from "./api.js";
import { bdi, h, section, setTitle, table } from "./elements.js";
import { bitsPerChar, decimal, percent } from "./numbers.js";
import { groupCurves } from "./run_curves.js";
import { originLinks, startedFrom } from "./run_relatives.js";
import { badge, hasEnded, repeat } from "./states.js";

/** @import { GroupStatus, RunRequest, Spread } from "./records.js" */

const NUMBERS = [
  ["best_val_loss", "Validation, best: nats per token"],
  ["best_val_bits_per_char", "Validation, best: bits per character"],
  ["test_loss", "Test: nats per token"],
  ["bits_per_char", "Test: bits per character"],
  ["test_perplexity", "Test: perplexity"],
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
  const numbers = NUMBERS.flatMap(([name, title]) => {
    const found = group.numbers[name ?? ""];
    return found ? [[title ?? "", ...spread(found)]] : [];
  });
  return [
    h("p", {}, badge({ ...group, reachable: true }), ` ${group.message}`),
    numbers.length
      ? table(`Numbers of ${group.n_completed} completed runs`, ["", "Mean", "Deviation", "95 % interval", "Range"], numbers)
      : null,
    table(
      "Runs",
      ["Run", "Status", "Progress", "Validation, best", "Test", "Bits per character"],
      group.members.map((run) => [
        h("a", { href: `#/runs/${run.run_id}` }, bdi(`seed ${run.seed}`)),
        badge(run),
        percent(run.progress / 100, 0),
        decimal(run.best_val_loss),
        decimal(run.test_loss),
        bitsPerChar(run.bits_per_char, run.unknown_char_share),
      ]),
    ),
  ].filter((part) => part !== null);
}

/** @param {Spread} found */
function spread(found) {
  const range = (/** @type {number | null} */ low, /** @type {number | null} */ high) =>
    low === null || high === null ? "–" : `${decimal(low)} to ${decimal(high)}`;
  return [decimal(found.mean), decimal(found.deviation), range(found.low, found.high), range(found.minimum, found.maximum)];
}
