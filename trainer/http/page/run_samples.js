/** Samples of a run over its training: those that it has stored, and new ones by its kept checkpoints. */

import { call, endOf, read } from "./api.js";
import { announce, failure, h, labelled, section, table } from "./elements.js";

/** @import { GenerateResponse, KeptCheckpoint, Sample, TrainingSamples } from "./records.js" */

const MAX_SAMPLES = 1000;
const MAX_ROWS = 24;
/** Checkpoints that one request goes to. */
const MAX_MODELS = 12;
const WAIT_SECONDS = 30;
const NEW_TOKENS = 40;

/**
 * Return the samples of a training that continue one prompt, those of the last step first.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export async function trainingSamples(runId, signal) {
  try {
    /** @type {TrainingSamples} */
    const { samples, total } = await read(`/runs/${runId}/samples?limit=${MAX_SAMPLES}`, signal);
    const prompts = [...new Set(samples.map(({ sample }) => sample.prompt))];
    const prompt = h(
      "select",
      { id: "sample-of", onchange: show },
      ...prompts.map((text) => h("option", { value: text }, text || "no prompt")),
    );
    const place = h("div");
    function show() {
      const rows = samples
        .filter(({ sample }) => sample.prompt === prompt.value)
        .slice(-MAX_ROWS)
        .toReversed()
        .map(({ step, sample }) => [step.toLocaleString("en"), quoted(sample)]);
      place.replaceChildren(table("Samples by step", ["Step", "Text"], rows));
    }
    show();
    const count = total > samples.length ? `The last ${samples.length.toLocaleString("en")} of ` : "";
    return [
      h("p", { class: "quiet" }, `${count}${total.toLocaleString("en")} samples. Prompts are bold.`),
      h("div", { class: "bar" }, labelled("Samples that continue", prompt)),
      place,
    ];
  } catch (error) {
    return [failure(error)];
  }
}

/**
 * Make the form that continues one prompt by the kept checkpoints, with one seed.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function samplesByCheckpoint(runId, signal) {
  /** @type {KeptCheckpoint[]} */
  let chosen = [];
  const prompt = h("input", { id: "sample-prompt", type: "text", dir: "auto", autocomplete: "off", spellcheck: false });
  const seed = h("input", { id: "sample-seed", type: "number", min: 0, value: 1, required: true });
  const button = h("button", {}, "Generate");
  const note = h("p", { class: "quiet" });
  const place = h("div");

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (button.ariaBusy === "true") return;
    button.ariaBusy = "true";
    announce("Generating.");
    place.replaceChildren();
    const body = { prompt_text: prompt.value, seed: Number(seed.value), max_new_tokens: NEW_TOKENS };
    /** @type {(Node | string)[][]} */
    const rows = [];
    try {
      for (const { step, words } of chosen) {
        const text = await generated(`${runId}@${step}`, body, signal);
        rows.push([step.toLocaleString("en"), words?.toLocaleString("en") ?? "–", quoted({ prompt: body.prompt_text, text })]);
        place.replaceChildren(table("Text by checkpoint", ["Step", "Words read", "Text"], rows));
      }
      announce("The texts are generated.");
    } catch (error) {
      if (!signal.aborted) place.append(failure(error));
    } finally {
      button.ariaBusy = "false";
    }
  }

  const form = h(
    "form",
    { onsubmit: submit },
    h(
      "div",
      { class: "fields" },
      h("div", { class: "field" }, h("label", { for: "sample-prompt" }, "Prompt"), prompt),
      h("div", { class: "field" }, h("label", { for: "sample-seed" }, "Seed"), seed),
      h("div", { class: "field" }, button),
    ),
    note,
    place,
  );
  const element = section("One prompt by all checkpoints", form);
  element.hidden = true;
  return {
    element,
    /** @param {KeptCheckpoint[]} kept */
    show(kept) {
      chosen = spread(kept, MAX_MODELS);
      element.hidden = !kept.length;
      button.textContent = `Generate by ${chosen.length} ${chosen.length === 1 ? "checkpoint" : "checkpoints"}`;
      note.textContent = chosen.length < kept.length ? `${chosen.length} of ${kept.length} checkpoints, spread evenly.` : "";
    },
  };
}

/**
 * Make the samples of the end of a training.
 * @param {string} lines JSON, one sample a line
 */
export function finalSamples(lines) {
  const samples = lines.trim().split("\n").filter(Boolean);
  return [
    h("p", { class: "quiet" }, samples.length ? "At the end of the training. Prompts are bold." : "This run has no samples of its end."),
    ...samples.map((line) => {
      /** @type {Sample} */
      const sample = JSON.parse(line);
      return h("figure", {}, quoted(sample), h("figcaption", {}, `seed ${sample.seed}, ended by ${sample.stop_reason}`));
    }),
  ];
}

/**
 * Continue a prompt; an equal request of this client gets the same answer.
 * @param {string} model
 * @param {{prompt_text: string, seed: number}} body
 * @param {AbortSignal} signal
 */
async function generated(model, body, signal) {
  const content = JSON.stringify(body);
  const response = await call(`/runs/${model}/generate?wait=${WAIT_SECONDS}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": `sample-${fingerprint(content)}` },
    body: content,
    signal,
  });
  /** @type {GenerateResponse} */
  const { outputs } = await endOf(response, signal);
  return outputs?.[0] ?? "";
}

/**
 * Return a number that stands for a text such as an equal request has, too: the browser's own digests need HTTPS.
 * @param {string} text
 */
function fingerprint(text) {
  let [high, low] = [0xdeadbeef, 0x41c6ce57];
  for (let at = 0; at < text.length; at++) {
    high = Math.imul(high ^ text.charCodeAt(at), 2654435761);
    low = Math.imul(low ^ text.charCodeAt(at), 1597334677);
  }
  return `${(high >>> 0).toString(36)}${(low >>> 0).toString(36)}`;
}

/**
 * @template Item
 * @param {Item[]} items
 * @param {number} most
 */
function spread(items, most) {
  if (items.length <= most) return items;
  const step = (items.length - 1) / (most - 1);
  return items.filter((_, index) => Math.round(Math.round(index / step) * step) === index);
}

/** @param {{prompt: string, text: string}} sample */
function quoted({ prompt, text }) {
  return h("blockquote", { dir: "auto" }, h("strong", {}, prompt), text);
}
