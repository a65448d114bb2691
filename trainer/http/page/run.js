/** One run: status, curve, surprisal of a text, samples, settings, files and log. */

import { call, read } from "./api.js";
import { bdi, failure, h, scrolling, section, setTitle, table } from "./elements.js";
import { follow } from "./event_stream.js";
import { fileAddress, fileTable } from "./files.js";
import { bitsPerChar, date, decimal, duration, percent, size } from "./numbers.js";
import { runCurves } from "./run_curves.js";
import { badge, hasEnded } from "./states.js";
import { surprisalForm } from "./surprisal.js";

/** @import { ArtifactFiles, RunFiles, RunStatus, Sample } from "./records.js" */

const STATUS_MILLISECONDS = 2000;
const PROGRESS = "trainer.metrics.progress.v1";
const SAMPLES = "eval/samples.jsonl";

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
  const results = h("div");
  main.append(
    h("p", {}, h("code", {}, runId)),
    section("Status", facts),
    section("Curve", curves.element),
    results,
    section(
      "Settings and log",
      onDemand("Settings", () => text(`${base}/config.yaml`)),
      onDemand("Last lines of the log", () => text(`${base}/logs?tail=200`)),
    ),
  );

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
    return hasEnded(run);
  };
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
      await curves.lastEventId,
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
  /** @type {[string, Node | string][]} */
  const pairs = [
    ["Status", badge(run)],
    ["Message", run.error?.message ?? run.message],
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
    ["Model", `${run.model_family}${run.model_size ? ` ${run.model_size}` : ""}, ${run.objective}`],
    ["Tokenizer", `${run.tokenizer_id ?? "–"}, ${run.vocab_size?.toLocaleString("en") ?? "–"} tokens`],
    ["Device", `${run.device ?? "–"}, ${run.precision ?? "–"}`],
    ["Speed", run.tokens_per_second === null ? "–" : `${decimal(run.tokens_per_second, 0)} tokens per second`],
    ["Owner", bdi(run.owner ?? "command line")],
    ["Created", date(run.created_at)],
    run.finished_at === null ? ["Time left", duration(run.eta_seconds)] : ["Finished", date(run.finished_at)],
  ];
  if (run.queue_position !== null) pairs.push(["Position in the queue", String(run.queue_position)]);
  if (run.attempt > 1) pairs.push(["Attempt", String(run.attempt)]);
  if (run.unknown_char_share) pairs.push(["Unknown characters", percent(run.unknown_char_share, 2)]);
  const unit = run.objective === "masked_lm" ? "masked token" : "token";
  const inBits = (/** @type {number | null} */ value) => bitsPerChar(value, run.unknown_char_share);
  return [
    h("dl", { class: "facts" }, ...pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
    ...run.warnings.map((warning) => h("p", { class: "warning" }, `⚠ ${warning}`)),
    table(
      "Losses",
      ["Split", `Nats per ${unit}`, "Bits per character", "Perplexity"],
      [
        ["Train", decimal(run.train_loss), inBits(run.train_bits_per_char), perplexity(run.train_loss)],
        ["Validation", decimal(run.val_loss), inBits(run.val_bits_per_char), perplexity(run.val_loss)],
        [
          "Validation, best",
          decimal(run.best_val_loss) + (run.best_val_margin === null ? "" : ` ± ${decimal(run.best_val_margin)} (95 %)`),
          inBits(run.best_val_bits_per_char),
          perplexity(run.best_val_loss),
        ],
        ["Test", decimal(run.test_loss), inBits(run.bits_per_char), decimal(run.test_perplexity, 2)],
      ],
    ),
  ];
}

/** @param {number | null} loss */
function perplexity(loss) {
  return decimal(loss === null ? null : Math.exp(loss), 2);
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
  const surprisal = section("Surprisal", surprisalForm(models, signal));
  try {
    /** @type {ArtifactFiles} */
    const { files, result_bytes } = await read(`/artifacts/${artifact}`, signal);
    const hasSamples = files.some((file) => file.path === SAMPLES);
    const samples = hasSamples ? await (await call(fileAddress(artifact, SAMPLES), { signal })).text() : "";
    return [
      surprisal,
      section(
        "Samples",
        h("p", { class: "quiet" }, hasSamples ? "Prompts are bold." : "This run has no samples."),
        ...samples.trim().split("\n").filter(Boolean).map(sample),
      ),
      section(
        "Files",
        h("p", { class: "quiet" }, `${files.length} files, ${size(result_bytes)}`),
        fileTable(artifact, files),
      ),
    ];
  } catch (error) {
    if (signal.aborted) throw error;
    return [surprisal, section("Files", failure(error))];
  }
}

/** @param {string} line */
function sample(line) {
  /** @type {Sample} */
  const { prompt, text, seed, stop_reason } = JSON.parse(line);
  const words = h("blockquote", { dir: "auto" }, h("strong", {}, prompt), text);
  return h("figure", {}, words, h("figcaption", {}, `seed ${seed}, ended by ${stop_reason}`));
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
