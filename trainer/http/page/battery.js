/** What a battery or a development adds to the view of a job: its title and its results. */

import { read } from "./api.js";
import { batteryResults } from "./battery_results.js";
import { developmentResults } from "./development.js";
import { fileAddress } from "./files.js";

/** @import { Additions } from "./job.js" */
/** @import { BatteryStatus, BatterySummary, Development } from "./records.js" */

/** @type {Additions<BatteryStatus>} */
export const BATTERY = {
  cancelled: "Its scores stay, and the same request continues with them.",
  title: ({ development_of, batteries }) =>
    development_of === null ? batteries.join(", ") : `Development of ${development_of}`,
  async results({ development_of, files }, artifact, signal) {
    /** @type {BatterySummary} */
    const summary = await read(fileAddress(artifact, "result.json"), signal);
    /** @type {Development | null} */
    const development =
      development_of === null ? null : await read(fileAddress(artifact, "development.json"), signal);
    return [
      ...(development ? developmentResults(artifact, development, files, signal) : []),
      ...batteryResults(artifact, summary, files, signal),
    ];
  },
};
