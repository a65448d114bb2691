/** One group of runs over seeds: its runs, the spread of their numbers, and the band of their curves. */

import { read } from "./api.js";
import { h, section, setTitle } from "./elements.js";
import { sectionsOf } from "./report.js";
import { groupCurves } from "./run_curves.js";
import { originLinks, startedFrom } from "./run_relatives.js";
import { badge, hasEnded, repeat } from "./states.js";

/** @import { GroupStatus, RunRequest } from "./records.js" */

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
    facts,
    section("Curves", h("p", { class: "quiet" }, "Means of the runs, in bands from the lowest to the highest number."), curves.element),
    startedFrom(groupId, signal),
  );
  const load = async () => {
    /** @type {GroupStatus} */
    const group = await read(base, signal);
    setTitle(group.label ?? "Group");
    const report = await read(`${base}/report`, signal);
    const state = h("p", {}, badge({ ...group, reachable: true }));
    if (!facts.contains(document.activeElement)) facts.replaceChildren(state, ...sectionsOf(report, "", [], signal));
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
