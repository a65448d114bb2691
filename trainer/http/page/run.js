/** One run: how good it is, its curve, samples and surprisals, then folded what is needed less often, and its files. */

import { call, read } from "./api.js";
import { ratioOf } from "./curve_lines.js";
import { failure, h, scrolling, section, table } from "./elements.js";
import { follow } from "./event_stream.js";
import { fileAddress, fileTable } from "./files.js";
import { size } from "./numbers.js";
import { sectionsOf } from "./report.js";
import { actionsOf } from "./run_actions.js";
import { annotationsOf } from "./run_annotations.js";
import { runCurves } from "./run_curves.js";
import { exportForm } from "./run_export.js";
import { logOf } from "./run_log.js";
import { originLinks, startedFrom } from "./run_relatives.js";
import { finalSamples, samplesByCheckpoint, trainingSamples } from "./run_samples.js";
import { badge, hasEnded } from "./states.js";
import { surprisalForm } from "./surprisal.js";

/** @import { ArtifactFiles, KeptCheckpoint, ReportPart, RunFiles, RunReport, RunRequest, RunStatus } from "./records.js" */

const STATUS_MILLISECONDS = 2000;
const PROGRESS = "trainer.metrics.progress.v1";
const SAMPLES = "eval/samples.jsonl";
const MAX_CHECKPOINTS = 200;

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} runId
 */
export async function showRun(main, signal, runId) {
  const base = `/runs/${runId}`;
  /** @type {RunReport} */
  let report = await read(`${base}/report`, signal);
  let { run } = report;
  const facts = h("div");
  const curves = runCurves(runId, signal);
  const origin = h("p", {});
  const actions = actionsOf(runId, signal, () => refresh());
  const annotations = annotationsOf(runId, signal);
  const state = h("span");
  const more = h("div");
  const checkpoints = h("div");
  const trained = h("div");
  const byCheckpoint = samplesByCheckpoint(runId, signal);
  const exports = exportForm(runId, signal);
  const results = h("div");
  const files = h("div");
  main.append(
    h("div", { class: "bar" }, state, h("code", {}, runId), actions.element),
    origin,
    annotations.element,
    facts,
    section("Curve", curves.element),
    more,
    trained,
    results,
    byCheckpoint.element,
    startedFrom(runId, signal),
    section(
      "More",
      checkpoints,
      h("details", {}, h("summary", {}, "Export for other programs"), exports.element),
      onDemand("Settings", () => text(`${base}/config.yaml`)),
      logOf(runId, signal),
      files,
    ),
  );
  actions.show(run);
  /** @type {RunRequest} */
  const request = await read(`${base}/request`, signal);
  origin.append(...originLinks(request, run.group?.group_id));

  const draw = () => {
    const bar = h("progress", { max: 100, value: run.progress, "aria-label": "Progress" });
    annotations.show(run);
    curves.setRatio(ratioOf(run));
    state.replaceChildren(badge(run), ...(hasEnded(run) ? [] : [" ", bar]));
    const [first, ...others] = sectionsOf(withoutName(report), "", [], signal);
    if (first && !facts.contains(document.activeElement)) facts.replaceChildren(first);
    if (!more.contains(document.activeElement)) more.replaceChildren(...others);
  };
  draw();

  let refreshed = Date.now();
  const refresh = async () => {
    refreshed = Date.now();
    report = await read(`${base}/report`, signal);
    run = report.run;
    draw();
    actions.show(run);
    await showStored();
    return hasEnded(run);
  };
  let stored = "";
  /** Show checkpoints and samples, if there may be new ones. */
  const showStored = async () => {
    const { status, step, last_checkpoint_step } = run;
    const samplesSoFar = Math.floor(step / Number(request.request["sample_every_steps"] ?? Infinity));
    const state = [status, last_checkpoint_step, samplesSoFar].join();
    if (state === stored) return;
    stored = state;
    /** @type {RunFiles} */
    const { kept } = await read(`${base}/files`, signal);
    exports.show([runId, ...kept.map((one) => `${runId}@${one.step}`)], status === "completed");
    curves.setCheckpoints(kept, (step) => `#/text/${runId}@${step}`);
    byCheckpoint.show(run.objective === "causal_lm" ? kept : []);
    if (kept.length && !checkpoints.contains(document.activeElement))
      checkpoints.replaceChildren(h("details", {}, h("summary", {}, "Checkpoints"), ...checkpointTable(runId, kept)));
    if (samplesSoFar && !trained.contains(document.activeElement))
      trained.replaceChildren(section("Samples of the training", ...(await trainingSamples(runId, signal))));
  };
  await showStored();
  if (!hasEnded(run)) {
    await follow(
      `${base}/events`,
      (event) => {
        if (event.event === PROGRESS) curves.add(JSON.parse(event.data));
        if (Date.now() - refreshed > STATUS_MILLISECONDS) refresh().catch(() => undefined); // the next one may succeed
      },
      refresh,
      signal,
      { last: await curves.lastEventId },
    );
  }
  if (run.status === "completed") await showResults(run, results, files, signal);

  /** @param {string} path */
  async function text(path) {
    return scrolling(path, h("pre", {}, await (await call(path, { signal })).text()));
  }
}

/**
 * Return the report of a run without the note of its id and state, which stand above it.
 * @param {RunReport} report
 * @returns {RunReport}
 */
export function withoutName(report) {
  const isName = (/** @type {ReportPart} */ part) => part.kind === "note" && [part.values["run"], part.values["id"]].includes(report.run.run_id);
  const sections = report.sections.map((section) => ({ ...section, parts: section.parts.filter((part) => !isName(part)) }));
  return { ...report, sections };
}

/**
 * @param {RunStatus} run
 * @param {HTMLElement} place
 * @param {HTMLElement} filePlace
 * @param {AbortSignal} signal
 */
async function showResults({ run_id: runId, label }, place, filePlace, signal) {
  const artifact = `models/${runId}`;
  /** @type {RunFiles} */
  const { kept } = await read(`/runs/${runId}/files`, signal);
  const models = [runId, ...kept.map((checkpoint) => `${runId}@${checkpoint.step}`)];
  const more = h("p", {}, h("a", { href: `#/text/${runId}` }, "Compare two models, or generate text"));
  place.append(section("Surprisal", more, surprisalForm(models, signal, label)));
  try {
    /** @type {ArtifactFiles} */
    const { files, result_bytes } = await read(`/artifacts/${artifact}`, signal);
    const hasSamples = files.some((file) => file.path === SAMPLES);
    const samples = hasSamples ? await (await call(fileAddress(artifact, SAMPLES), { signal })).text() : "";
    place.append(section("Samples", ...finalSamples(samples)));
    filePlace.append(h("details", {}, h("summary", {}, `${files.length} files, ${size(result_bytes)}`), fileTable(artifact, files)));
  } catch (error) {
    if (signal.aborted) throw error;
    filePlace.append(failure(error));
  }
}

/**
 * @param {string} runId
 * @param {KeptCheckpoint[]} kept
 */
function checkpointTable(runId, kept) {
  const count = (/** @type {number | null} */ value) => value?.toLocaleString("en") ?? "–";
  const rows = kept.slice(-MAX_CHECKPOINTS).map(({ step, epoch, words, tokens, bytes }) => [
    count(step),
    count(epoch),
    count(words),
    count(tokens),
    size(bytes),
    h("a", { href: `#/text/${runId}@${step}`, "aria-label": `Score or generate by step ${step}` }, "Score or generate"),
    h("a", { href: `#/batteries/new?runs=${runId}@${step}`, "aria-label": `Battery for step ${step}` }, "Battery"),
  ]);
  const left = kept.length > rows.length ? `The last ${rows.length} of ${kept.length} checkpoints.` : "";
  return [
    ...(left ? [h("p", { class: "quiet" }, left)] : []),
    table("Kept checkpoints", ["Step", "Epoch", "Words read", "Tokens read", "Size", "Text", "Battery"], rows),
  ];
}

/**
 * Make details that are read anew each time they are opened.
 * @param {string} title
 * @param {() => Promise<Node>} content
 */
function onDemand(title, content) {
  const place = h("div");
  const details = h(
    "details",
    {
      ontoggle: async () => {
        if (!details.open) return;
        try {
          place.replaceChildren(await content());
        } catch (error) {
          place.replaceChildren(failure(error));
        }
      },
    },
    h("summary", {}, title),
    place,
  );
  return details;
}
