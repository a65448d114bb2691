/** The form that starts a training: a new one, or one like a run, with changes. */

import { ApiError, read, send } from "./api.js";
import { forgetDrafts } from "./drafts.js";
import { announce, failure, h, section, setTitle } from "./elements.js";
import { SchemaForm } from "./schema_form.js";

/** @import { Accepted, RunRequest } from "./records.js" */
/** @import { Schema, Values } from "./schema_form.js" */
/** @typedef {{paths: Record<string, unknown>, components: {schemas: Record<string, Schema>}}} Description */

/**
 * The groups of fields; those that no group names are in the last one.
 * @type {[string, string[]][]}
 */
const GROUPS = [
  ["Training", ["corpus", "label", "model_family", "model_size", "minutes", "search", "num_epochs", "max_steps", "seed", "seeds"]],
  ["Tokenizer", ["tokenizer", "tokenizer_id"]],
  [
    "Splits",
    ["validation_corpus", "test_corpus", "holdout_fraction", "test_fraction", "split_by", "split_seed", "documents", "allow_same_corpus"],
  ],
  ["Sizes of the model", ["model", "max_seq_len", "objective", "mlm_probability"]],
  ["Initial weights", ["init_from_run_id", "freeze_embeddings"]],
  [
    "Optimization",
    ["learning_rate", "lr_schedule", "decay_ratio", "min_learning_rate", "warmup_steps", "warmup_ratio", "batch_size", "gradient_accumulation", "gradient_clipping", "ema_decay", "optimizer", "early_stopping", "max_seconds"],
  ],
  ["Checkpoints and samples", ["checkpoint_every_steps", "checkpoint_schedule", "eval_every_steps", "log_every_steps", "sample_every_steps"]],
  ["Machine and records", []],
];

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _argument
 * @param {URLSearchParams} query
 */
export async function showTraining(main, signal, _argument, query) {
  const from = query.get("from");
  /** @type {Description} */
  const { paths, components } = await read("/openapi.json", signal);
  const { schemas } = components;
  const record = schemas["TrainRequest"] ?? {};
  /** @type {Values} */
  let values = {};
  if (from !== null) {
    /** @type {RunRequest} */
    const { request } = await read(`/runs/${encodeURIComponent(from)}/request`, signal);
    values = { ...request, label: undefined, resume: undefined }; // a label would then name two runs
    setTitle("Train again with changes");
    main.append(h("p", {}, "The fields are those of the run ", h("a", { href: `#/runs/${from}` }, from), "."));
  }
  const draft = `train:${from ?? ""}`;
  const lists = {
    corpus: "corpora",
    validation_corpus: "corpora",
    test_corpus: "corpora",
    tokenizer_id: "tokenizers",
    init_from_run_id: "completed-runs",
  };
  const form = new SchemaForm(schemas, values, draft, lists);
  const trouble = h("div");
  const button = h("button", {}, "Start the training");
  const sent = h("pre");
  const details = h("details", { ontoggle: showSent }, h("summary", {}, "What is sent, as JSON"), sent);
  const grouped = new Set(GROUPS.flatMap(([, names]) => names));
  const rest = Object.keys(record.properties ?? {}).filter((name) => !grouped.has(name));
  const groups = GROUPS.map(([title, names], index) => {
    const isLast = index === GROUPS.length - 1;
    const fields = [...names, ...(isLast ? rest : [])].map((name) =>
      form.fields(name, record.properties?.[name] ?? {}, record.required?.includes(name)),
    );
    const group = h("div", { class: "fields" }, ...fields);
    return index === 0 ? section(title, group) : h("details", {}, h("summary", {}, title), group);
  });
  main.append(
    h("p", { class: "quiet" }, "A field that is left empty has its default, and is not sent."),
    h(
      "form",
      { class: "schema", novalidate: true, onsubmit: submit, oninput: showSent },
      ...groups,
      trouble,
      h("div", { class: "bar" }, button, h("button", { type: "button", onclick: startOver }, "Undo all changes")),
      details,
    ),
  );
  await Promise.all([
    suggest("corpora", "/corpora", (/** @type {{corpora: {name: string}[]}} */ found) => found.corpora.map((one) => one.name)),
    suggest("tokenizers", "/tokenizers", (/** @type {{tokenizers: {tokenizer_id: string}[]}} */ found) =>
      found.tokenizers.map((one) => one.tokenizer_id),
    ),
    suggest("completed-runs", "/runs?status=completed", (/** @type {{runs: {run_id: string}[]}} */ found) =>
      found.runs.map((one) => one.run_id),
    ),
  ]);

  function showSent() {
    if (details.open) sent.textContent = JSON.stringify(form.read(), null, 2);
  }

  function startOver() {
    forgetDrafts(`${draft}:`);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    trouble.replaceChildren();
    try {
      /** @type {Accepted} */
      const accepted = await (await send("/runs/train", form.read(), signal)).json();
      forgetDrafts(`${draft}:`);
      location.hash = accepted.group ? `#/groups/${accepted.group.group_id}` : `#/runs/${accepted.run_id}`;
      announce("The training is queued.");
    } catch (error) {
      if (signal.aborted) return;
      const problems = error instanceof ApiError ? error.details : [];
      const elsewhere = form.show(problems);
      if (elsewhere.length || !problems.length) trouble.append(failure(error));
      else announce(error instanceof Error ? error.message : "");
      form.focus();
    } finally {
      button.disabled = false;
    }
  }

  /**
   * Fill a list of suggestions, if the server has the operation and lets the client use it.
   * @template Answer
   * @param {string} id
   * @param {string} path
   * @param {(answer: Answer) => string[]} names
   */
  async function suggest(id, path, names) {
    if (!(path.replace(/\?.*/, "") in paths)) return;
    try {
      /** @type {Answer} */
      const answer = await read(path, signal);
      main.append(h("datalist", { id }, ...names(answer).map((name) => h("option", { value: name }))));
    } catch (error) {
      if (signal.aborted) throw error;
    }
  }
}
