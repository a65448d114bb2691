/** One job of any kind but runs: its status, results and files, and the buttons that cancel and delete it. */

import { actionButton, deleteButton } from "./actions.js";
import { read, send } from "./api.js";
import { announce, bdi, failure, h, renew, section, setTitle } from "./elements.js";
import { fileAddress, fileTable } from "./files.js";
import { columnsOf, fieldsOf, progressBar, runningRuns, trainingText } from "./job_columns.js";
import { capital, size } from "./numbers.js";
import { confirms } from "./question.js";
import { foldedSection, recordTable, titleOf, valueOf } from "./record_table.js";
import { noteText, sectionsOf } from "./report.js";
import { badge, hasEnded, repeat } from "./states.js";

/** @import { Child } from "./elements.js" */
/** @import { ArtifactFiles, JobStatus, JobTable, Report, RunStatus, TokenizerStatus } from "./records.js" */
/** @typedef {Record<string, unknown>} Fields */
/**
 * What a kind adds to the view of its jobs.
 * @template {JobStatus} Status
 * @typedef {object} Additions
 * @property {string} cancelled what else ends with a job, and what stays
 * @property {string} own the field of the status that `parts` shows
 * @property {(job: Status) => Element} parts
 * @property {(artifact: string, signal: AbortSignal) => Promise<Element>} results of a completed job, after its report
 * @property {(job: Status) => Element | null} [verdict] what stands beside the state
 * @property {number} [open] the number of sections of its report that are not folded
 */

const REPORT = "report.json";
/** @type {Record<string, () => Promise<Additions<any>>>} */
const ADDITIONS = {
  experiments: async () => (await import("./experiment.js")).EXPERIMENT,
  tokenizers: async () => TOKENIZER,
};
/** @type {Additions<TokenizerStatus>} */
const TOKENIZER = {
  cancelled: "",
  own: "stats",
  parts: () => h("div"),
  async results(artifact, signal) {
    /** @type {Report} */
    const report = await read(`/${artifact}/report`, signal);
    return h("div", {}, ...sectionsOf(report, artifact, [], signal));
  },
};

/**
 * Return the view of a job of a kind; that of a completed job begins with its results.
 * @param {JobTable} row
 */
export function viewOf(row) {
  const { kind, word } = row;
  return async (/** @type {HTMLElement} */ main, /** @type {AbortSignal} */ signal, /** @type {string} */ id) => {
    const added = await ADDITIONS[kind]?.();
    const artifact = `${kind}/${id}`;
    const address = `/${artifact}`;
    const [state, facts, now, parts, results, files, trouble] = [h("span"), h("div"), h("div"), h("div"), h("div"), h("div"), h("div")];
    const cancel = actionButton(`Cancel the ${word}`, trouble, signal, async () => {
      const question = `Cancel this ${word}? ${added?.cancelled || "What it has stored stays."}`;
      if (!(await confirms(question, `Cancel the ${word}`, signal))) return;
      await send(`${address}/cancel`, {}, signal);
      announce(`The ${word} is cancelled.`);
      await load();
    });
    const remove = deleteButton(word, address, trouble, signal, () => (location.hash = `#/${kind}`));
    const status = section("Status", facts, now, h("div", { class: "bar" }, cancel, remove), trouble);
    main.append(h("p", {}, h("code", {}, id), " ", state), results, status, parts, files);
    let isOver = false;

    async function load() {
      /** @type {JobStatus} */
      const job = await read(address, signal);
      const { name, label } = fieldsOf(job);
      setTitle(String(name ?? label ?? capital(word)));
      const verdict = added?.verdict?.(job) ?? null;
      state.replaceChildren(badge(job), ...(verdict ? [" ", verdict] : []));
      renewed(facts, ...statusParts(row, job, added?.own));
      renewed(now, ...(await trainingsOf(job, signal)));
      renewed(parts, ...(added ? [added.parts(job)] : []));
      isOver = hasEnded(job);
      cancel.hidden = isOver;
      remove.hidden = !isOver;
      if (job.status !== "completed") return;
      try {
        /** @type {ArtifactFiles} */
        const found = await read(`/artifacts/${artifact}`, signal);
        const about = h("p", { class: "quiet" }, `${found.files.length} files, ${size(found.result_bytes)}`);
        files.replaceChildren(foldedSection("Files", () => h("div", {}, about, fileTable(artifact, found.files))));
        if (found.files.some(({ path }) => path === REPORT)) {
          /** @type {Report} */
          const report = await read(fileAddress(artifact, REPORT), signal);
          setTitle(noteText(report.title));
          results.replaceChildren(...sectionsOf(report, artifact, found.files, signal, added?.open ?? 1));
        }
        if (added) results.append(await added.results(artifact, signal));
      } catch (error) {
        if (!signal.aborted) results.append(failure(error));
      }
    }

    await load();
    repeat(async () => {
      if (!isOver) await load().catch(() => undefined); // the next one may succeed
    }, signal);
  };
}

/**
 * Return a list of the trainings of a job that run now, each with its progress.
 * @param {JobStatus} job
 * @param {AbortSignal} signal
 */
async function trainingsOf(job, signal) {
  /** @type {(RunStatus | null)[]} */
  const runs = await Promise.all(runningRuns(fieldsOf(job)).map((runId) => read(`/runs/${runId}`, signal).catch(() => null)));
  const items = runs.filter((run) => run !== null).map((run) =>
    h("li", {}, h("a", { href: `#/runs/${run.run_id}` }, bdi(run.label ?? run.run_id)), ` ${trainingText(run)} `, progressBar(run.progress, 100)),
  );
  return items.length ? [h("h3", {}, "Training now"), h("ul", {}, ...items)] : [];
}

/**
 * @param {HTMLElement} place
 * @param {Element[]} parts
 */
function renewed(place, ...parts) {
  const made = h("div", {}, ...parts);
  if (place.firstChild) renew(place.firstChild, made);
  else place.append(made);
}

/**
 * Write the status of a job: its columns, then its other fields.
 * @param {JobTable} row
 * @param {JobStatus} job
 * @param {string} own
 */
function statusParts(row, job, own = "") {
  const idField = `${row.word}_id`;
  const columns = columnsOf(row).filter(({ fields }) => !fields.includes(idField));
  const shown = [idField, "error", "files", own, ...columns.flatMap(({ fields }) => fields)];
  const rest = Object.entries(fieldsOf(job)).filter(([name]) => !shown.includes(name));
  if (job.error) rest.push(["message", job.error.message]);
  return recordParts(
    columns.map(({ title, write }) => [title, write(job)]),
    Object.fromEntries(rest),
  );
}

/**
 * Write facts and the plain fields of a record as a list, and a part for each record or list of records in it.
 * @param {[title: string, content: Child][]} facts
 * @param {Fields} record
 * @returns {Element[]}
 */
function recordParts(facts, record) {
  const known = Object.entries(record).filter(([, value]) => value !== null && !isEmpty(value));
  const plain = known.filter(([, value]) => !isNested(value)).map(([name, value]) => pair(() => titleOf(name), valueOf(name, value)));
  return [
    h("dl", { class: "facts" }, ...facts.map(([title, content]) => pair(() => title, content)), ...plain),
    ...known.filter(([, value]) => isNested(value)).flatMap(([name, value]) => [
      h("h3", {}, capital(titleOf(name))),
      ...(Array.isArray(value)
        ? [recordTable(titleOf(name), value, Object.keys(value[0]))]
        : recordParts([], /** @type {Fields} */ (value))),
    ]),
  ];
}

/** @param {() => string} title @param {Child} content */
function pair(title, content) {
  return h("div", {}, h("dt", {}, () => capital(title())), h("dd", {}, content));
}

/** @param {unknown} value */
function isEmpty(value) {
  return typeof value === "object" && Object.keys(Object(value)).length === 0;
}

/** @param {unknown} value a record, or a list of records */
function isNested(value) {
  return typeof value === "object" && (!Array.isArray(value) || typeof value[0] === "object");
}
