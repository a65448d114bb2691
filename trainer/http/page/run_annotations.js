/** The name, the note and the tags of a run, and the form that changes them; the name is the page's title. */

import { actionButton } from "./actions.js";
import { send } from "./api.js";
import { announce, bdi, h, labelled, setTitle } from "./elements.js";

/** @import { RunStatus } from "./records.js" */

/**
 * Make the part; `show` renews it unless the form is open.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function annotationsOf(runId, signal) {
  const shown = h("p", { hidden: true });
  const label = h("input", { id: "label", autocomplete: "off", maxlength: 64 });
  const tags = h("input", { id: "tags", autocomplete: "off", spellcheck: "false", placeholder: "pilot, large" });
  const note = h("input", { id: "note", autocomplete: "off", maxlength: 2000 });
  const trouble = h("div");
  const save = actionButton("Save", trouble, signal, async () => {
    const change = { label: label.value.trim() || null, note: note.value.trim(), tags: tags.value.split(",").map((tag) => tag.trim()).filter(Boolean) };
    /** @type {RunStatus} */
    const run = await (await send(`/runs/${runId}/annotations`, change, signal)).json();
    form.open = false;
    form.querySelector("summary")?.focus();
    show(run);
    announce("Name, note and tags are stored.");
  });
  const form = h("details", {}, h("summary", {}, "Name, note and tags"), h("div", { class: "bar" }, labelled("Name", label), labelled("Tags", tags), labelled("Note", note), save), trouble);

  /** @param {RunStatus} run */
  function show(run) {
    if (form.open) return;
    setTitle(run.label ?? "Run");
    label.value = run.label ?? "";
    tags.value = run.tags.join(", ");
    note.value = run.note ?? "";
    const links = run.tags.flatMap((tag) => [h("a", { href: `#/?where=${encodeURIComponent(`tags=${tag}`)}` }, bdi(tag)), " "]);
    shown.replaceChildren(...links, bdi(note.value));
    shown.hidden = !shown.textContent;
  }
  return { element: h("div", {}, shown, form), show };
}
