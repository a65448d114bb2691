/** The list of corpora, with buttons that delete them, and a form to upload one, which continues after a cut. */

import { deleteButton } from "./actions.js";
import { ApiError, call, read, send } from "./api.js";
import { kept } from "./drafts.js";
import { announce, bdi, failure, h, labelled, setTitle, table } from "./elements.js";
import { decimal, percent, size } from "./numbers.js";
import { noteText, sectionsOf } from "./report.js";
import { TABLES } from "./tables.js";

/** @import { CorpusList, CorpusOverview, Report, UploadStatus } from "./records.js" */

const PORTION_BYTES = 4 * 1024 * 1024;
/** A proxy that refuses even this many bytes takes no upload. */
const LEAST_PORTION_BYTES = 1024;

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 */
export async function showCorpora(main, signal) {
  const [list, trouble] = [h("div"), h("div")];
  main.append(form(refresh, signal), trouble, list);

  async function refresh() {
    /** @type {CorpusList} */
    const { corpora } = await read("/corpora", signal);
    const head = ["Corpus", "Size", "Lines", "Languages", "Spelling", ""];
    const row = (/** @type {CorpusOverview} */ corpus) => {
      const address = `/corpora/${encodeURIComponent(corpus.name)}`;
      const button = deleteButton(`corpus ${corpus.name}`, address, trouble, signal, refresh);
      button.ariaLabel = `Delete ${corpus.name}`;
      return [...cells(corpus), button];
    };
    list.replaceChildren(
      corpora.length ? table("Corpora", head, corpora.map(row)) : h("p", { class: "quiet" }, "No corpora yet."),
      ...corpora.flatMap(({ notes }) => notes.map((note) => h("p", { class: "quiet" }, bdi(note)))),
    );
  }
  await refresh();
}

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} name as it stands in an address
 */
export async function showCorpus(main, signal, name) {
  /** @type {Report} */
  const report = await read(`/corpora/${name}/report`, signal);
  setTitle(noteText(report.title));
  main.append(...sectionsOf(report, "", [], signal));
}

/** @param {CorpusOverview} corpus */
function cells({ name, bytes, lines, languages, is_ipa }) {
  const spelling = is_ipa === null ? "–" : is_ipa ? "IPA" : "usual spelling";
  return [h("a", { href: `#/corpora/${encodeURIComponent(name)}` }, bdi(name)), size(bytes), decimal(lines, 0), languages.join(", ") || "–", spelling];
}

/**
 * Make the form for an upload; `refresh` shows the corpora again.
 * @param {() => Promise<void>} refresh
 * @param {AbortSignal} signal
 */
function form(refresh, signal) {
  const file = h("input", { id: "corpus-file", type: "file", required: true, accept: TABLES.corpus_suffixes.join() });
  const name = kept(h("input", { id: "corpus-name", maxlength: 100, required: true, autocomplete: "off" }), "corpus-name");
  const language = kept(
    h("input", { id: "corpus-language", size: 6, pattern: "[a-z]{2,8}(-[a-z0-9]{1,8})*", placeholder: "kk", autocomplete: "off" }),
    "corpus-language",
  );
  const spelling = kept(
    h(
      "select",
      { id: "corpus-spelling" },
      h("option", { value: "" }, "not said"),
      h("option", { value: "false" }, "usual spelling"),
      h("option", { value: "true" }, "IPA"),
    ),
    "corpus-spelling",
  );
  const start = h("button", {}, "Upload");
  const stop = h("button", { type: "button", hidden: true }, "Stop");
  const state = h("div");
  file.addEventListener("change", () => {
    if (!name.value) name.value = (file.files?.[0]?.name ?? "").replace(/\.[^.]*$/, "");
  });

  async function submit() {
    const chosen = file.files?.[0];
    if (!chosen) return;
    const stopping = new AbortController();
    stop.onclick = () => stopping.abort();
    start.disabled = true;
    stop.hidden = false;
    try {
      const ends = AbortSignal.any([signal, stopping.signal]);
      const noted = { language: language.value || null, is_ipa: spelling.value ? spelling.value === "true" : null };
      const corpus = await upload(chosen, { name: name.value, ...noted }, shown(state), ends);
      const facts = `${size(corpus.bytes)}, ${decimal(corpus.lines, 0)} lines`;
      const said = `: ${[`${facts}.`, ...corpus.notes].join(" ")} SHA-256: `;
      state.replaceChildren(h("p", {}, "Stored as corpus ", bdi(corpus.name), said, h("code", {}, corpus.sha256 ?? "")));
      announce(`The corpus ${corpus.name} is stored.`);
    } catch (error) {
      if (signal.aborted) return;
      const text = "Stopped. Upload the same file with the same name to continue.";
      state.replaceChildren(stopping.signal.aborted ? h("p", {}, text) : failure(error));
      return;
    } finally {
      start.disabled = false;
      stop.hidden = true;
    }
    await refresh().catch((error) => state.append(failure(error))); // the corpus is stored all the same
  }

  return h(
    "form",
    {
      class: "bar upload",
      onsubmit: (event) => {
        event.preventDefault();
        void submit();
      },
    },
    labelled("Text to upload (.txt, .jsonl, .csv or .tsv)", file),
    labelled("Name", name),
    labelled("Language", language),
    labelled("Spelling", spelling),
    start,
    stop,
    state,
  );
}

/**
 * Return a function that shows the progress of an upload.
 * @param {HTMLElement} state
 */
function shown(state) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Upload" });
  const text = h("span");
  const stay = "The upload goes on while this page is open. If it is closed, upload the same file again to continue.";
  state.replaceChildren(h("p", {}, bar, " ", text), h("p", { class: "quiet" }, stay));
  return (/** @type {number} */ done, /** @type {number} */ total) => {
    bar.value = total ? done / total : 1;
    text.textContent = `${percent(bar.value, 0)} of ${size(total)}`;
  };
}

/**
 * Upload a file in portions, from where an earlier upload of it ended: the server knows it by its name, size and time.
 * @param {File} file
 * @param {{name: string, language: string | null, is_ipa: boolean | null}} about
 * @param {(done: number, total: number) => void} show
 * @param {AbortSignal} signal
 */
async function upload(file, about, show, signal) {
  const described = { name: file.name, bytes: file.size, modified_at: new Date(file.lastModified).toISOString() };
  const request = { ...about, files: [described] };
  let status = await started(request, signal);
  let length = PORTION_BYTES;
  while (status.corpus === null) {
    show(status.offset, status.bytes);
    try {
      status = status.offset < status.bytes ? await sent(file, status, length, signal) : await started(request, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 413 || length <= LEAST_PORTION_BYTES) throw error;
      length /= 2; // a proxy takes smaller bodies than the server
    }
  }
  return { ...status.corpus, sha256: status.sha256 };
}

/**
 * @param {unknown} request
 * @param {AbortSignal} signal
 * @returns {Promise<UploadStatus>}
 */
async function started(request, signal) {
  return (await send("/corpora", request, signal)).json();
}

/**
 * Send the next portion; where the server has other bytes than expected, read how many.
 * @param {File} file
 * @param {UploadStatus} status
 * @param {number} length
 * @param {AbortSignal} signal
 * @returns {Promise<UploadStatus>}
 */
async function sent(file, { upload_id, offset }, length, signal) {
  const path = `/corpora/uploads/${upload_id}`;
  // a portion can be repeated: the server takes it at its offset only
  const headers = { "Content-Type": "application/octet-stream", "Idempotency-Key": `${upload_id}-${offset}` };
  try {
    const body = portion(file, offset, length);
    return await (await call(`${path}?offset=${offset}`, { method: "PATCH", headers, body, signal })).json();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
    try {
      return await read(path, signal);
    } catch {
      throw error; // the conflict is about the name of the corpus
    }
  }
}

/** @param {File} file @param {number} offset @param {number} length */
function portion(file, offset, length) {
  return file.slice(offset, offset + length);
}
