/** One run: actions, status, curve, checkpoints, samples, surprisal of a text, export, files, settings and log. */

import { call, read } from "./api.js";
import { bdi, failure, h, scrolling, section, setTitle, table } from "./elements.js";
import { follow } from "./event_stream.js";
import { fileAddress, fileTable } from "./files.js";
import { capital, counting, date, decimal, duration, loss, perChar, percent, perplexity, size, told } from "./numbers.js";
import { actionsOf } from "./run_actions.js";
import { runCurves } from "./run_curves.js";
import { exportForm } from "./run_export.js";
import { logOf } from "./run_log.js";
import { originLinks, startedFrom } from "./run_relatives.js";
import { finalSamples, samplesByCheckpoint, trainingSamples } from "./run_samples.js";
import { badge, hasEnded } from "./states.js";
import { surprisalForm } from "./surprisal.js";
import { unit } from "./units.js";

/** @import { LiveText } from "./elements.js" */
/** @import { ArtifactFiles, KeptCheckpoint, RunFiles, RunRequest, RunStatus, Trial } from "./records.js" */

const STATUS_MILLISECONDS = 2000;
const PROGRESS = "trainer.metrics.progress.v1";
const SAMPLES = "eval/samples.jsonl";
const CHECKPOINTS = "checkpoints/";
const MAX_CHECKPOINTS = 200;

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} runId
 */
export async function showRun(main, signal, runId) {
  const base = `/runs/${runId}`;
  /** @type {RunStatus} */
  let run = await read(base, signal);
  setTitle(run.label ?? "Run");
  const facts = h("div");
  const curves = runCurves(runId, signal);
  const origin = h("p", {});
  const actions = actionsOf(runId, signal, () => refresh());
  const checkpoints = h("div");
  const trained = h("div");
  const byCheckpoint = samplesByCheckpoint(runId, signal);
  const exports = exportForm(runId, signal);
  const results = h("div");
  main.append(
    h("p", {}, h("code", {}, runId)),
    origin,
    actions.element,
    section("Status", facts),
    section("Curve", curves.element),
    checkpoints,
    trained,
    byCheckpoint.element,
    results,
    startedFrom(runId, signal),
    section("Export", exports.element),
    section("Settings and log", onDemand("Settings", () => text(`${base}/config.yaml`)), logOf(runId, signal)),
  );
  actions.show(run);
  /** @type {RunRequest} */
  const request = await read(`${base}/request`, signal);
  origin.append(...originLinks(request, run.group?.group_id));

  let isWaiting = false;
  const draw = () => {
    isWaiting = false;
    if (!facts.contains(document.activeElement)) facts.replaceChildren(...factsOf(run));
  };
  draw();

  let refreshed = Date.now();
  const refresh = async () => {
    refreshed = Date.now();
    run = await read(base, signal);
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
      checkpoints.replaceChildren(section("Checkpoints", ...checkpointTable(runId, kept)));
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
        if (!isWaiting) isWaiting = Boolean(requestAnimationFrame(draw)); // many events may come at once
      },
      refresh,
      signal,
      { last: await curves.lastEventId },
    );
  }
  if (run.status === "completed") results.append(...(await resultsOf(runId, signal)));

  /** @param {string} path */
  async function text(path) {
    return scrolling(path, h("pre", {}, await (await call(path, { signal })).text()));
  }
}

/** @param {RunStatus} run */
function factsOf(run) {
  /** @type {[string, Node | LiveText][]} */
  const pairs = [
    ["Status", badge(run)],
    ["Message", () => told(run.message)],
    [
      "Progress",
      h(
        "span",
        {},
        h("progress", { max: 100, value: run.progress, "aria-label": "Progress" }),
        ` ${percent(run.progress / 100, 0)}`,
      ),
    ],
    [
      "Step",
      `${run.step.toLocaleString("en")} of ${run.total_steps?.toLocaleString("en") ?? "–"}, epoch ${run.epoch} of ${run.total_epochs}`,
    ],
    ["Weights", run.params?.toLocaleString("en") ?? "–"],
    ["Model", `${run.model_family}${run.model_size ? ` ${run.model_size}` : ""}, ${run.objective}${run.is_bidirectional ? ", both directions" : ""}`],
    ["Tokenizer", `${run.tokenizer_id ?? "–"}, ${run.vocab_size?.toLocaleString("en") ?? "–"} tokens`],
    ["Device", `${run.device ?? "–"}, ${run.precision ?? "–"}`],
    ["Speed", run.tokens_per_second === null ? "–" : `${decimal(run.tokens_per_second, 0)} tokens per second`],
    ["Owner", bdi(run.owner ?? "command line")],
    ["Created", date(run.created_at)],
    run.finished_at === null ? ["Time left", duration(run.reachable ? run.eta_seconds : null)] : ["Finished", date(run.finished_at)],
  ];
  if (run.queue_position !== null) pairs.push(["Position in the queue", String(run.queue_position)]);
  if (run.learning_rate !== null) pairs.push(["Learning rate", run.learning_rate.toPrecision(3)]);
  if (run.grad_norm !== null) pairs.push(["Gradient norm", decimal(run.grad_norm)]);
  if (run.gpu_memory_bytes !== null) pairs.push(["GPU memory", run.gpu_memory_bytes.map(size).join(", ")]);
  if (run.best_epoch !== null) pairs.push(["Best epoch", `${run.best_epoch}${run.best_epoch === 0 ? ": the parent's weights" : ""}${run.early_stopped ? ", stopped early" : ""}`]);
  if (run.attempt > 1) pairs.push(["Attempt", String(run.attempt)]);
  const unknown = run.unknown_char_share;
  if (unknown) pairs.push(["Unknown characters", unknown < 0.0005 ? "less than 0.1 %" : percent(unknown)]);
  const token = run.objective === "masked_lm" ? "masked token" : "token";
  const perToken = (/** @type {number | null} */ nats) => () => loss(nats);
  const perCharacter = (/** @type {number | null} */ bits) => () => perChar(bits, run.unknown_char_share);
  const perplexityOf = (/** @type {number | null} */ nats) => perplexity(nats === null ? null : Math.exp(nats));
  const { best_val_loss, best_val_margin, baseline, error } = run;
  return [
    h("dl", { class: "facts" }, ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    ...(error ? [h("p", { class: "error" }, () => told(error.message))] : []),
    ...run.notes.map((note) => h("p", {}, bdi(() => told(note)))),
    ...run.warnings.map((warning) => h("p", { class: "warning" }, () => `⚠ ${told(warning)}`)),
    table(
      "Losses",
      ["Split", () => `${capital(unit())} per ${token}`, () => `${capital(unit())} per character`, "Perplexity"],
      [
        ["Train", perToken(run.train_loss), perCharacter(run.train_bits_per_char), perplexityOf(run.train_loss)],
        ["Validation", perToken(run.val_loss), perCharacter(run.val_bits_per_char), perplexityOf(run.val_loss)],
        [
          "Validation, best",
          () => loss(best_val_loss) + (best_val_margin === null ? "" : ` ± ${loss(best_val_margin)} (95 %)`),
          perCharacter(run.best_val_bits_per_char),
          perplexityOf(best_val_loss),
        ],
        ["Test", perToken(run.test_loss), perCharacter(run.bits_per_char), perplexity(run.test_perplexity)],
      ],
    ),
    ...(baseline === null ? [] : [h("p", {}, () => counting(baseline))]),
    ...(run.search === null ? [] : [trialTable(run.search.trials)]),
  ];
}

/** @param {Trial[]} trials */
function trialTable(trials) {
  return table(
    "Trials of the search",
    ["Round", "Variant", "Learning rate", "Dropout", "Steps", () => `Validation, ${unit()} per token`],
    trials.map((one) => [
      String(one.round),
      String(one.number),
      one.learning_rate.toPrecision(2),
      decimal(one.dropout, 2),
      one.steps.toLocaleString("en"),
      one.val_loss === null ? "diverged" : () => loss(one.val_loss),
    ]),
  );
}

/**
 * @param {string} runId
 * @param {AbortSignal} signal
 */
async function resultsOf(runId, signal) {
  const artifact = `models/${runId}`;
  /** @type {RunFiles} */
  const { kept } = await read(`/runs/${runId}/files`, signal);
  const models = [runId, ...kept.map((checkpoint) => `${runId}@${checkpoint.step}`)];
  const more = h("p", {}, h("a", { href: `#/text/${runId}` }, "Compare two models, or generate text"));
  const surprisal = section("Surprisal", more, surprisalForm(models, signal));
  try {
    /** @type {ArtifactFiles} */
    const { files, result_bytes } = await read(`/artifacts/${artifact}`, signal);
    const hasSamples = files.some((file) => file.path === SAMPLES);
    const samples = hasSamples ? await (await call(fileAddress(artifact, SAMPLES), { signal })).text() : "";
    return [
      surprisal,
      section("Samples", ...finalSamples(samples)),
      section(
        "Result files",
        h("p", { class: "quiet" }, `${files.length} files, ${size(result_bytes)}`),
        fileTable(artifact, files.filter(({ path }) => !path.startsWith(CHECKPOINTS))),
        kept.length
          ? h("details", {}, h("summary", {}, "Files of checkpoints"), fileTable(artifact, files.filter(({ path }) => path.startsWith(CHECKPOINTS))))
          : null,
      ),
    ];
  } catch (error) {
    if (signal.aborted) throw error;
    return [surprisal, section("Result files", failure(error))];
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
    h("a", { href: `#/batteries/new?run=${runId}@${step}`, "aria-label": `Battery for step ${step}` }, "Battery"),
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
