/** The list of batteries and developments. */

import { read } from "./api.js";
import { h } from "./elements.js";
import { showJobs } from "./job_list.js";
import { date, duration } from "./numbers.js";

/** @import { BatteryList, BatteryStatus } from "./records.js" */

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _argument
 * @param {URLSearchParams} query a `run` opens the form for it
 */
export async function showBatteries(main, signal, _argument, query) {
  const run = query.get("run");
  if (run !== null) return location.replace(`#/batteries/new?${new URLSearchParams({ run })}`);
  main.append(h("p", {}, h("a", { href: "#/batteries/new" }, "Start a battery or a development")));
  await showJobs(main, signal, {
    name: "Batteries",
    columns: ["Batteries", "Runs", "Progress", "Time", "Created"],
    read: async () => (await /** @type {Promise<BatteryList>} */ (read("/batteries", signal))).batteries,
    address: ({ battery_id }) => `#/batteries/${battery_id}`,
    title: ({ battery_id }) => battery_id,
    cells: (battery) => [
      h("bdi", {}, battery.batteries.join(", ") || "–"),
      models(battery),
      battery.error?.message ?? battery.message,
      duration(battery.elapsed_seconds),
      date(battery.created_at),
    ],
  });
}

/** @param {BatteryStatus} battery */
function models({ runs, development_of }) {
  if (development_of !== null) return `${runs.length} checkpoints of ${development_of}`;
  return runs.length > 2 ? `${runs.length} runs` : runs.join(", ");
}
