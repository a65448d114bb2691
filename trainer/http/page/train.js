/** The forms that start a training, or another job, made from the schema of its request. */

import { ApiError, read, send } from "./api.js";
import { forgetDrafts } from "./drafts.js";
import { announce, failure, h, scrolling, section, setTitle, withCode } from "./elements.js";
import { capital, withChosenUnit } from "./numbers.js";
import { SchemaForm } from "./schema_form.js";

/** @import { CheckedTraining, JobTable, RunRequest } from "./records.js" */
/** @import { Schema, Values } from "./schema_form.js" */
/**
 * What the page uses of the description of the API.
 * @typedef {{post?: {requestBody: {content: {"application/json": {schema: Schema}}}}}} Operations
 * @typedef {{paths: Record<string, Operations>, components: {schemas: Record<string, Schema>}}} Description
 */
/**
 * @typedef {object} Start
 * @property {string} address
 * @property {string} word
 * @property {[string, string[]][]} groups of fields; those that no group names are in the last one
 * @property {Values} values what the fields begin with
 * @property {string} draft
 * @property {string} [check] an address that resolves a request
 */

const CHECK_MILLISECONDS = 500;
const MAX_SHOWN_CHARACTERS = 200;
/** The lists of suggestions by the name of a field. */
const LISTS = {
  corpus: "corpora",
  corpora: "corpora",
  validation_corpus: "corpora",
  test_corpus: "corpora",
  tokenizer_id: "tokenizers",
  init_from_run_id: "completed-runs",
  runs: "completed-runs",
  batteries: "earlier-batteries",
};
/**
 * The fields of other jobs that come first.
 * @type {Record<string, string[]>}
 */
const FIRST = {
  batteries: ["runs", "batteries", "files", "development"],
  readings: ["runs", "file", "measures", "scale"],
  experiments: ["name", "languages", "corpora", "models", "seeds"],
  studies: ["name", "train", "settings", "space", "variants"],
  tokenizers: ["method", "corpora", "vocab_size", "label"],
};
/** The fields that are for programs alone, by their paths. */
const FOR_PROGRAMS = ["file.notes"];
/** @type {[string, string[]][]} */
const GROUPS = [
  ["Training", ["corpus", "label", "model_family", "model_size", "minutes", "num_epochs", "max_steps", "seed", "seeds"]],
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
  ["Checkpoints and samples", ["checkpoint_every_steps", "checkpoint_schedule", "eval_every_steps", "log_every_steps", "sample_every_steps", "sample_prompts"]],
  ["Machine and records", []],
];

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _argument
 * @param {URLSearchParams} query `from` is a run whose request the fields begin with
 */
export async function showTraining(main, signal, _argument, query) {
  const from = query.get("from");
  /** @type {Values} */
  let values = {};
  if (from !== null) {
    /** @type {RunRequest} */
    const { request } = await read(`/runs/${encodeURIComponent(from)}/request`, signal);
    values = { ...request, label: undefined, resume: undefined }; // a label would then name two runs
    setTitle("Train again with changes");
    main.append(h("p", {}, "The fields are those of the run ", h("a", { href: `#/runs/${from}` }, from), "."));
  }
  const start = { address: "/runs/train", word: "training", groups: GROUPS, values, draft: `train:${from ?? ""}` };
  await showForm(main, signal, { ...start, check: "/runs/check" });
}

/**
 * Return the view with the form of a kind of jobs; the query has values of fields.
 * @param {JobTable} row
 */
export function formOf({ kind, word, start }) {
  return (/** @type {HTMLElement} */ main, /** @type {AbortSignal} */ signal, /** @type {string} */ _, /** @type {URLSearchParams} */ query) =>
    showForm(main, signal, {
      address: start,
      word,
      groups: [[word, FIRST[kind] ?? []], ["Options", []]],
      values: Object.fromEntries(query),
      draft: `${kind}:${query}`,
    });
}

/**
 * Return a value with an ellipsis for the end of a long text, such as a file.
 * @param {unknown} value
 */
function shortened(value) {
  return typeof value === "string" && value.length > MAX_SHOWN_CHARACTERS ? `${value.slice(0, MAX_SHOWN_CHARACTERS)}…` : value;
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {Start} start
 */
async function showForm(main, signal, { address, word, groups, values, draft, check }) {
  /** @type {Description} */
  const { paths, components } = await read("/openapi.json", signal);
  const { schemas } = components;
  const reference = paths[address]?.post?.requestBody.content["application/json"].schema.$ref ?? "";
  const record = schemas[reference.split("/").pop() ?? ""] ?? {};
  const form = new SchemaForm(schemas, values, draft, LISTS, FOR_PROGRAMS);
  const trouble = h("div");
  const resolved = h("div");
  const button = h("button", {}, `Start the ${word}`);
  const sent = h("pre");
  const details = h("details", { ontoggle: showSent }, h("summary", {}, "What is sent, as JSON"), scrolling("What is sent", sent));
  const grouped = new Set(groups.flatMap(([, names]) => names));
  const rest = Object.keys(record.properties ?? {}).filter((name) => !grouped.has(name));
  const made = groups.map(([title, names], index) => {
    const isLast = index === groups.length - 1;
    const fields = [...names, ...(isLast ? rest : [])]
      .filter((name) => record.properties?.[name])
      .map((name) => form.fields(name, record.properties?.[name] ?? {}, record.required?.includes(name)));
    const group = h("div", { class: "fields" }, ...fields);
    return index === 0 ? section(capital(title), group) : h("details", {}, h("summary", {}, title), group);
  });
  let asked = "";
  let timer = 0;
  main.append(
    h("p", { class: "quiet" }, "A field that is left empty has its default, and is not sent."),
    h(
      "form",
      { class: "schema", novalidate: true, onsubmit: submit, oninput: typed, onchange: resolve },
      ...made,
      resolved,
      trouble,
      h("div", { class: "bar" }, button, h("button", { type: "button", onclick: startOver }, "Undo all changes")),
      details,
    ),
  );
  resolve();
  await Promise.all([
    suggest("corpora", "/corpora", (/** @type {{corpora: {name: string}[]}} */ found) => found.corpora.map((one) => one.name)),
    suggest("tokenizers", "/tokenizers", (/** @type {{tokenizers: {tokenizer_id: string}[]}} */ found) =>
      found.tokenizers.map((one) => one.tokenizer_id),
    ),
    suggest("completed-runs", "/runs?status=completed", (/** @type {{runs: {run_id: string}[]}} */ found) =>
      found.runs.map((one) => one.run_id),
    ),
    suggest("earlier-batteries", "/batteries", (/** @type {{batteries: {batteries: string[]}[]}} */ found) => [
      ...new Set(found.batteries.flatMap((one) => one.batteries)),
    ]),
  ]);

  /** @param {Event} event */
  function typed({ target }) {
    form.clear(target);
    resolve();
  }

  function showSent() {
    if (details.open) sent.textContent = JSON.stringify(form.read(), (_, value) => shortened(value), 2);
  }

  function startOver() {
    forgetDrafts(`${draft}:`);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }

  /** Show the values that the server chooses for what is left empty, and the cost. */
  function resolve() {
    showSent();
    clearTimeout(timer);
    const request = form.read();
    const text = JSON.stringify(request);
    if (!check || text === asked) return;
    if (record.required?.some((name) => !(name in request))) {
      asked = "";
      return resolved.replaceChildren();
    }
    timer = setTimeout(async () => {
      asked = text;
      /** @type {CheckedTraining | null} */
      let answer = null;
      /** @type {unknown} */
      let refusal = null;
      try {
        answer = await (await send(check, request, signal)).json();
      } catch (error) {
        refusal = error;
      }
      if (text !== asked || signal.aborted) return;
      tell(refusal);
      form.resolve({ ...answer?.effective });
      const { cost = [], warnings = [], notes = [], chosen = [] } = answer ?? {};
      const reasons = chosen.map(({ field, value, reason }) => `${field}: ${value}, ${reason}`);
      const lines = [...cost, ...warnings, ...notes, ...reasons].map((line) => h("li", {}, withCode(() => withChosenUnit(line))));
      resolved.replaceChildren(...(lines.length ? [section("What will be trained", h("ul", {}, ...lines))] : []));
    }, CHECK_MILLISECONDS);
  }

  /**
   * Show the refusal of what is entered: at its fields, or below them; null shows that there is none.
   * @param {unknown} error
   */
  function tell(error) {
    const problems = error instanceof ApiError ? error.details : [];
    const elsewhere = form.show(problems);
    const isBelow = error !== null && (elsewhere.length > 0 || !problems.length);
    trouble.replaceChildren(...(isBelow ? [failure(error)] : []));
    if (error !== null && !isBelow) announce(error instanceof Error ? error.message : "");
  }

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    trouble.replaceChildren();
    clearTimeout(timer);
    asked = ""; // a check that comes later does not take the answer's problems away
    try {
      const response = await send(address, form.read(), signal);
      const accepted = new URL(response.headers.get("Location") ?? "", response.url);
      forgetDrafts(`${draft}:`);
      location.hash = `#/${accepted.pathname.split("/").slice(-2).join("/")}`;
      announce(`The ${word} is queued.`);
    } catch (error) {
      if (signal.aborted) return;
      tell(error);
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
