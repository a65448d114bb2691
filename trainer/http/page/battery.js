/** What a battery or a development adds to the view of a job: its title and its results. */

import { reportOf } from "./report.js";

/** @import { Additions } from "./job.js" */
/** @import { BatteryStatus } from "./records.js" */

/** @type {Additions<BatteryStatus>} */
export const BATTERY = {
  cancelled: "Its scores stay, and the same request continues with them.",
  title: ({ development_of, batteries }) =>
    development_of === null ? batteries.join(", ") : `Development of ${development_of}`,
  results: ({ files }, artifact, signal) => reportOf(artifact, files, signal),
};
