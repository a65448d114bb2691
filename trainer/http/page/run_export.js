/** The form that exports a run, or one of its checkpoints, as a file for other programs. */

import { endOf, send } from "./api.js";
import { addressOf } from "./connection.js";
import { announce, failure, h } from "./elements.js";
import { date, size } from "./numbers.js";
import { TABLES } from "./tables.js";

/** @import { ExportStatus } from "./records.js" */

/**
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function exportForm(runId, signal) {
  const model = h("select", { id: "export-model", onchange: showFormats });
  const form = h("select", { id: "export-format" });
  const license = h("input", { id: "export-license", type: "text", autocomplete: "off", spellcheck: false, placeholder: "cc0-1.0" });
  const button = h("button", {}, "Export");
  const files = h("ul");
  const trouble = h("div");
  let isCompleted = false;

  function showFormats() {
    const isRun = model.value === runId;
    const { formats, checkpoint_formats, curve_formats } = TABLES;
    const names = Object.entries(formats).filter(([name]) =>
      curve_formats.some((one) => one === name) ? isRun : isRun ? isCompleted : checkpoint_formats.some((one) => one === name),
    );
    const chosen = form.value;
    form.replaceChildren(
      ...names.map(([name, about]) =>
        h("option", { value: name, selected: name === chosen }, `${name}: ${about}`),
      ),
    );
  }

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    trouble.replaceChildren(h("p", { class: "quiet" }, "Exporting. This takes some seconds."));
    announce("Exporting.");
    try {
      const body = { format: form.value, license: license.value.trim() || null };
      /** @type {ExportStatus} */
      const { file } = await endOf(await send(`/runs/${model.value}/export`, body, signal), signal);
      if (file === null) throw new Error("The export was cancelled.");
      const { name, bytes, sha256, url, expires_at } = file;
      const link = h("a", { href: addressOf(url), download: name }, name);
      files.append(h("li", {}, link, ` ${size(bytes)}, until ${date(expires_at)}, SHA-256 `, h("code", {}, sha256)));
      trouble.replaceChildren();
      announce("The export is ready.");
      link.focus();
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(failure(error));
    } finally {
      button.disabled = false;
    }
  }

  return {
    element: h(
      "form",
      { class: "fields", onsubmit: submit },
      h("div", { class: "field" }, h("label", { for: "export-model" }, "Exported model"), model),
      h("div", { class: "field" }, h("label", { for: "export-format" }, "Format"), form),
      h("div", { class: "field" }, h("label", { for: "export-license" }, "License of the model (optional)"), license),
      h("div", { class: "field" }, button),
      h("div", { class: "wide" }, trouble, files),
    ),
    /**
     * @param {string[]} models the run, then its kept checkpoints
     * @param {boolean} hasModel
     */
    show(models, hasModel) {
      isCompleted = hasModel;
      const chosen = model.value;
      model.replaceChildren(...models.map((name) => h("option", { value: name, selected: name === chosen }, name)));
      showFormats();
    },
  };
}
