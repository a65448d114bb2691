/** The form that starts a battery or a development. */

import { read, send } from "./api.js";
import { kept } from "./drafts.js";
import { failure, h } from "./elements.js";
import { TABLES } from "./tables.js";

/** @import { BatteryList, BatteryStatus } from "./records.js" */
/** @typedef {import("./elements.js").Child} Child */


/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} _argument
 * @param {URLSearchParams} query `run` is the model to start with
 */
export async function showBatteryForm(main, signal, _argument, query) {
  const draft = (/** @type {string} */ name) => `battery ${name}`;
  const { battery_options: usual, development_options: checkpoints } = TABLES;
  const runs = kept(
    h("input", { id: "runs", required: true, autocomplete: "off", spellcheck: "false" }),
    draft("runs"),
  );
  runs.value = query.get("run") ?? runs.value;
  const names = kept(
    h("input", { id: "batteries", list: "known", autocomplete: "off", spellcheck: "false" }),
    draft("names"),
  );
  const known = h("datalist", { id: "known" });
  const upload = h("input", { id: "files", type: "file", multiple: true, accept: TABLES.battery_suffixes.join() });
  const items = kept(
    h("textarea", { id: "items", rows: 4, spellcheck: "false", placeholder: "good,bad" }),
    draft("items"),
  );
  const itemsName = kept(
    h("input", { id: "items-name", value: "items.csv", spellcheck: "false" }),
    draft("items name"),
  );
  const measure = kept(
    choice("measure", Object.keys(TABLES.measures), usual.measure),
    draft("measure"),
  );
  const hasControls = h("input", { id: "controls", type: "checkbox", checked: usual.has_controls });
  const isWithinWord = h("input", { id: "within-word", type: "checkbox", checked: usual.pll_within_word });
  const isDevelopment = h("input", { id: "development", type: "checkbox", onchange: choose });
  const split = kept(choice("split", TABLES.splits, checkpoints.split), draft("split"));
  const hasLoss = h("input", { id: "loss", type: "checkbox", checked: checkpoints.has_loss });
  const hasWords = h("input", { id: "has-words", type: "checkbox", checked: checkpoints.has_words });
  const words = kept(h("input", { id: "words", autocomplete: "off", spellcheck: "false" }), draft("words"));
  const follows = h("input", { id: "follows", type: "checkbox", checked: checkpoints.follows });
  const options = h(
    "fieldset",
    {},
    h("legend", {}, "Measured at each checkpoint"),
    field(split, "Split"),
    field(hasLoss, "Loss of the split"),
    field(hasWords, "Ages of words"),
    field(words, "Words, separated by blanks (default: the most frequent ones)"),
    field(follows, "Wait for the checkpoints of a training that still runs"),
  );
  const trouble = h("div");
  const button = h("button", {}, "Start");
  function choose() {
    options.hidden = !isDevelopment.checked;
  }
  choose();

  async function start() {
    button.disabled = true;
    trouble.replaceChildren();
    try {
      const uploaded = await Promise.all(
        [...(upload.files ?? [])].map(async (file) => ({ name: file.name, content: await file.text() })),
      );
      const pasted = items.value.trim() ? [{ name: itemsName.value.trim(), content: items.value }] : [];
      const development = {
        split: split.value,
        has_loss: hasLoss.checked,
        has_words: hasWords.checked,
        words: parts(words.value, /\s+/),
        follows: follows.checked,
      };
      const response = await send(
        "/batteries",
        {
          runs: parts(runs.value, /[\s,]+/),
          batteries: parts(names.value, /,/),
          files: [...uploaded, ...pasted],
          measure: measure.value,
          has_controls: hasControls.checked,
          pll_within_word: isWithinWord.checked,
          development: isDevelopment.checked ? development : null,
        },
        signal,
      );
      /** @type {BatteryStatus} */
      const { battery_id } = await response.json();
      location.hash = `#/batteries/${battery_id}`;
    } catch (error) {
      if (!signal.aborted) trouble.replaceChildren(failure(error));
    } finally {
      button.disabled = false;
    }
  }

  main.append(
    h(
      "form",
      { class: "battery-form", onsubmit: (event) => (event.preventDefault(), start()) },
      field(runs, "Runs or checkpoints, separated by blanks: RUN or RUN@1200"),
      field(names, "Batteries by name, separated by commas, such as blimp:passive_1"),
      known,
      field(upload, `Files of items of your own (${TABLES.battery_suffixes.join(", ")})`),
      field(items, "Or items pasted here"),
      field(itemsName, "File name of the pasted items; its suffix gives the format"),
      field(measure, "Measure of comparisons"),
      field(hasControls, "Controls: the untrained architecture, counts, and the training text"),
      field(isWithinWord, "Masked models: mask the later tokens of a word too"),
      field(isDevelopment, "Development: measure all kept checkpoints of one run"),
      options,
      button,
      trouble,
    ),
  );
  try {
    /** @type {BatteryList} */
    const { batteries } = await read("/batteries", signal);
    const earlier = new Set(batteries.flatMap((battery) => battery.batteries));
    known.append(...[...earlier].sort().map((name) => h("option", { value: name })));
  } catch {
    // the field needs no suggestions
  }
}

/**
 * @param {HTMLElement} control
 * @param {string} text
 */
function field(control, text) {
  return h("div", {}, h("label", { for: control.id }, text), control);
}

/**
 * Make a choice of names, one of which is chosen at first.
 * @param {string} id
 * @param {string[]} names
 * @param {string} first
 */
function choice(id, names, first) {
  return h("select", { id }, ...names.map((name) => h("option", { selected: name === first }, name)));
}

/**
 * Return the parts of a text that are not empty.
 * @param {string} text
 * @param {RegExp} separator
 */
function parts(text, separator) {
  return text
    .split(separator)
    .map((part) => part.trim())
    .filter(Boolean);
}
