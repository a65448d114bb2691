/** One battery or development: its progress while it runs, and its results. */

import { read } from "./api.js";
import { batteryResults } from "./battery_results.js";
import { developmentResults } from "./development.js";
import { bdi, failure, h, section, setTitle } from "./elements.js";
import { fileAddress, fileTable } from "./files.js";
import { cancelButton, jobFacts } from "./job_status.js";
import { size } from "./numbers.js";
import { folded } from "./record_table.js";
import { hasEnded, repeat } from "./states.js";

/** @import { BatteryStatus, BatterySummary, Development } from "./records.js" */

const MANY_RUNS = 10;

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} id
 */
export async function showBattery(main, signal, id) {
  const address = `/batteries/${id}`;
  const artifact = `batteries/${id}`;
  const facts = h("div");
  const runs = h("div");
  const results = h("div");
  const cancel = cancelButton(
    address,
    "battery",
    "Its scores stay, and the same request continues with them.",
    load,
    signal,
  );
  main.append(h("p", {}, h("code", {}, id)), section("Status", facts, cancel, runs), results);
  let isOver = false;

  async function load() {
    /** @type {BatteryStatus} */
    const battery = await read(address, signal);
    const isDevelopment = battery.development_of !== null;
    setTitle(isDevelopment ? `Development of ${battery.development_of}` : battery.batteries.join(", "));
    const progress = { done: battery.done, total: battery.total, unit: "items" };
    facts.replaceChildren(jobFacts(battery, progress, [["Batteries", bdi(battery.batteries.join(", ") || "–")]]));
    if (!runs.contains(document.activeElement)) runs.replaceChildren(runLinks(battery));
    isOver = hasEnded(battery);
    cancel.hidden = isOver;
    if (battery.status !== "completed") return;
    try {
      /** @type {BatterySummary} */
      const summary = await read(fileAddress(artifact, "result.json"), signal);
      /** @type {Development | null} */
      const development = isDevelopment ? await read(fileAddress(artifact, "development.json"), signal) : null;
      const total = battery.files.reduce((sum, { bytes }) => sum + bytes, 0);
      results.replaceChildren(
        ...(development ? developmentResults(artifact, development, battery.files, signal) : []),
        ...batteryResults(artifact, summary, battery.files, signal),
        section(
          "Files",
          h("p", { class: "quiet" }, `${battery.files.length} files, ${size(total)}`),
          fileTable(artifact, battery.files),
        ),
      );
    } catch (error) {
      if (!signal.aborted) results.replaceChildren(section("Results", failure(error)));
    }
  }

  await load();
  repeat(async () => {
    if (!isOver) await load().catch(() => undefined); // the next one may succeed
  }, signal);
}

/** @param {BatteryStatus} battery */
function runLinks({ runs, development_of }) {
  const link = (/** @type {string} */ run) =>
    h("li", {}, h("a", { href: `#/runs/${run.split("@")[0]}` }, h("code", {}, run)));
  const list = () => h("ul", {}, ...runs.map(link));
  if (development_of !== null)
    return h("p", {}, "Checkpoints of ", h("a", { href: `#/runs/${development_of}` }, development_of));
  return runs.length > MANY_RUNS ? folded(`${runs.length} runs`, list) : h("div", {}, h("h3", {}, "Runs"), list());
}
