/** Comparison of two to ten runs or groups: verdicts, curves over each other, metrics, and settings that differ. */

import { read } from "./api.js";
import { announce, bdi, failure, h, section } from "./elements.js";
import { sectionsOf } from "./report.js";
import { ratioOf } from "./curve_lines.js";
import { TrainingCurves, curveButton } from "./run_curves.js";
import { TABLES } from "./tables.js";

/** @import { GroupStatus, RunStatus } from "./records.js" */

const LETTERS = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].slice(0, TABLES.max_compared);
/** Stands before the id of a group in the address of a comparison. */
export const GROUP_MARK = "~";

/**
 * @param {HTMLElement} main
 * @param {AbortSignal} signal
 * @param {string} names ids, separated by commas; those of groups have a mark
 */
export async function showComparison(main, signal, names) {
  const compared = names.split(",").slice(0, LETTERS.length).map((name) => {
    const isGroup = name.startsWith(GROUP_MARK);
    const id = isGroup ? name.slice(GROUP_MARK.length) : name;
    return { id, path: `/${isGroup ? "groups" : "runs"}/${id}` };
  });
  /** @type {(RunStatus | GroupStatus)[]} */
  const statuses = await Promise.all(compared.map(({ path }) => read(path, signal)));
  const sources = compared.map(({ path }, index) => {
    const [letter = "", status] = [LETTERS[index], statuses[index]];
    const [run] = status && "members" in status ? status.members : [status];
    return {
      path,
      train: { name: `${letter} train`, label: letter, style: `run${index}` },
      validation: { name: `${letter} validation`, label: `${letter} val.`, style: `run${index} dashed` },
      ...(run ? { ratio: ratioOf(run) } : {}),
    };
  });
  const curves = new TrainingCurves(sources, signal);
  /** @type {Set<string>} paths of those whose curves are hidden */
  const hidden = new Set();
  /** @param {string} path @param {number} index */
  const button = (path, index) => {
    const made = curveButton(LETTERS[index] ?? "", `run${index}`, hidden.has(path), () => {
      if (!hidden.delete(path)) hidden.add(path);
      const isHidden = hidden.has(path);
      made.ariaPressed = String(!isHidden);
      made.title = isHidden ? "Show the curve" : "Hide the curve";
      void curves.show(sources.filter((source) => !hidden.has(source.path)));
    });
    return made;
  };
  const results = h("div");
  main.append(
    h(
      "ul",
      { class: "legend" },
      ...compared.map(({ id, path }, index) =>
        h(
          "li",
          {},
          button(path, index),
          h("b", { class: `run${index}` }, LETTERS[index] ?? ""),
          " ",
          h("a", { href: `#${path}` }, bdi(statuses[index]?.label ?? id)),
          h("small", {}, id),
        ),
      ),
      h("li", {}, copyButton()),
    ),
    results,
    section("Curves", h("p", { class: "quiet" }, "Solid: training loss. Dashed: validation loss."), curves.element),
  );
  try {
    const report = await read(`/compare/report?runs=${compared.map(({ id }) => id).join(",")}`, signal);
    results.append(...sectionsOf(report, "", [], signal));
  } catch (error) {
    if (!signal.aborted) results.append(section("Metrics", failure(error)));
  }
}

/** Make a button that copies the address of the page, or shows it selected where the browser does not copy. */
function copyButton() {
  const button = h("button", { type: "button", onclick: () => copy() }, "Copy link");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      announce("Link copied");
      button.textContent = "Link copied";
    } catch {
      const address = h("input", { readonly: true, value: location.href, "aria-label": "Link of this page" });
      button.replaceWith(address); // without HTTPS, a page may not write to the clipboard
      address.select();
    }
  };
  return button;
}
