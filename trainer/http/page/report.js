/** A report: its tables, figures and notes, with numbers in the unit of the page. */

import { Chart } from "./curves.js";
import { bdi, h, labelled, section, table, withCode } from "./elements.js";
import { download } from "./files.js";
import { heatTable } from "./heat_table.js";
import { languageTree } from "./language_tree.js";
import { date, decimal, duration, signed, size, withChosenUnit, withMinus } from "./numbers.js";
import { picture } from "./pictures.js";
import { folded, foldedSection } from "./record_table.js";
import { TABLES, counted, filled } from "./tables.js";
import { inUnit, natsOf, unit } from "./units.js";

/** @import { LiveText } from "./elements.js" */
/** @import { TableChoice, Column, Estimate, Figure, FileRecord, Form, Note, Report, ReportCell, ReportPart, Table, Series } from "./records.js" */

const MAX_ROWS = 1000;
/** @type {Note} */
const NOTHING = { kind: "note", template: "", plural: null, values: {} };

/**
 * Return the sections of a report; `artifact` and `files` are those of its job, if it has one.
 * @param {Report} report
 * @param {string} artifact
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 * @param {number} open the number of sections that are not folded, unless they are details
 */
export function sectionsOf(report, artifact, files, signal, open = Infinity) {
  return report.sections.map(({ title, parts, is_detail }, index) => {
    const made = () => partsOf(parts, artifact, files, signal);
    const isFolded = is_detail || index >= open;
    return isFolded ? foldedSection(noteText(title), () => h("div", {}, ...made())) : section(noteText(title), ...made());
  });
}

/**
 * @param {ReportPart[]} parts
 * @param {string} artifact
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 * @returns {(Element | null)[]}
 */
function partsOf(parts, artifact, files, signal) {
  const notes = parts.filter((part) => part.kind === "note");
  return parts.flatMap((part) => {
    switch (part.kind) {
      case "table":
        return [tableOf(part, artifact)];
      case "choice":
        return [choiceOf(part, artifact)];
      case "figure":
        return figureOf(part, artifact, files, signal);
      default:
        return part === notes[0] ? [notesOf(notes)] : [];
    }
  });
}

/**
 * Return a note as text.
 * @param {Note} note
 * @returns {string}
 */
export function noteText({ template, plural, values }) {
  const { count } = values;
  const isOne = typeof count === "object" && "value" in count && count.value === 1;
  const shown = Object.entries(values).map(([name, value]) => [
    name,
    typeof value === "string" ? withChosenUnit(value) : "template" in value ? noteText(value) : written(value.value, value.form),
  ]);
  return filled(plural === null || isOne ? template : plural, { unit: unit(), ...Object.fromEntries(shown) });
}

/**
 * Write a number of a report.
 * @param {number} value
 * @param {Form} form
 */
export function written(value, form) {
  if (form === "text") return String(value);
  if (form === "percent") return `${decimal(value, 0)} %`;
  if (form === "time") return date(new Date(value * 1000).toISOString());
  if (form === "duration") return duration(value);
  if (form === "bytes") return size(value);
  const { digits, is_significant, is_percent, is_signed, unit: given } = TABLES.writings[form];
  if (is_significant) return withMinus(String(Number(value.toPrecision(digits))));
  const number = given === "nats" ? inUnit(value) : given === "bits" ? inUnit(natsOf(value)) : value;
  const write = (/** @type {number | null} */ one) =>
    is_percent ? `${decimal((one ?? 0) * 100, digits)} %` : decimal(one, digits);
  const text = is_signed ? signed(number, write) : write(number);
  return form === "points" ? text.replace(" %", "") : text;
}

/**
 * Return a cell of a column as text.
 * @param {ReportCell} cell
 * @param {Pick<Column, "form" | "shows">} column
 * @returns {string}
 */
export function textOf(cell, { form, shows }) {
  if (cell === null) return "–";
  if (typeof cell === "string") return cell;
  if (typeof cell === "number") return written(cell, form);
  if ("template" in cell) return noteText(cell);
  if ("address" in cell) return textOf(cell.text, { form, shows });
  const { value, low, high, deviation, n_ties, is_marked } = cell;
  const number = `${value === null ? "–" : written(value, form)}${is_marked ? " (!)" : ""}`;
  const end = (/** @type {number} */ one) => (form === "accuracy" ? written(one, form).replace(" %", "") : written(one, form));
  const ends = low === null || high === null ? "" : `${end(low)}${form === "points" ? "," : " to"} ${end(high)}`;
  if (shows === "value") return number;
  if (shows === "interval") return ends || "–";
  const spread = deviation === null ? "" : `±${written(deviation, form)}`;
  const within = ends && (form === "points" ? ` [${ends}]` : ` (${ends})`);
  return `${number}${spread}${within}${n_ties ? `, ${counted(n_ties, "tie")}` : ""}`;
}

/** @param {Note[]} notes */
function notesOf(notes) {
  return h("ul", {}, ...warningsFirst(notes).map((note) => h("li", { class: isWarning(note) && "warning" }, withCode(() => noteText(note)))));
}

/**
 * Return notes with the warnings before the others.
 * @param {Note[]} notes
 */
export function warningsFirst(notes) {
  return [...notes.filter(isWarning), ...notes.filter((note) => !isWarning(note))];
}

/** @param {Note} note */
function isWarning({ template }) {
  return template.startsWith("Warning: ");
}

/**
 * @param {Table} shown
 * @param {string} artifact
 */
function tableOf(shown, artifact) {
  const rows = shown.rows.slice(0, MAX_ROWS);
  const caption = () => noteText(shown.caption ?? shown.title);
  const all = shown.file === null ? [] : [" All digits: ", download(artifact, shown.file), "."];
  const cut = rows.length < shown.rows.length ? ` The first ${decimal(MAX_ROWS, 0)} of ${decimal(shown.rows.length, 0)} rows.` : "";
  return h(
    "div",
    {},
    h("p", { class: "quiet" }, caption, cut, ...all),
    shown.scale === null ? plainTable(shown, caption, rows) : colouredTable(shown, caption, rows, shown.scale),
  );
}

/**
 * @param {Table} shown
 * @param {LiveText} caption
 * @param {ReportCell[][]} rows
 */
function plainTable({ columns }, caption, rows) {
  const titles = columns.map(({ title }) => (noteText(title) ? () => noteText(title) : ""));
  const cells = rows.map((row) => columns.map((column, place) => cellOf(row[place] ?? null, column)));
  if (titles.some(Boolean)) return table(caption, titles, cells);
  return h("dl", { class: "facts" }, ...cells.map(([title, value]) => h("div", {}, h("dt", {}, title ?? ""), h("dd", {}, value ?? ""))));
}

/**
 * @param {ReportCell} cell
 * @param {Column} column
 */
function cellOf(cell, column) {
  const text = () => textOf(cell, column);
  const isLink = typeof cell === "object" && cell !== null && "address" in cell;
  if (isLink) return h("a", { href: `#/${cell.address}` }, text);
  const isEstimate = typeof cell === "object" && cell !== null && "low" in cell;
  const isNumber = typeof cell === "number" || (isEstimate && cell.low === null && cell.deviation === null);
  return h("bdi", { class: isNumber && "number" }, text);
}

/**
 * Make a table whose numbers are coloured; on hover and focus it tells their intervals.
 * @param {Table} shown
 * @param {LiveText} caption
 * @param {ReportCell[][]} rows
 * @param {[low: number, high: number]} scale
 */
function colouredTable({ columns, n_titles }, caption, rows, [low, high]) {
  const numbered = columns.map((column, place) => ({ column, place })).slice(n_titles);
  const shown = numbered.filter(({ column }) => column.shows !== "interval");
  const form = shown.find(({ column }) => column.form !== "count")?.column.form ?? "text";
  return heatTable(
    caption,
    ["", ...shown.map(({ column }) => noteText(column.title))],
    rows.map((row) => {
      const titles = columns.slice(0, n_titles).map((column, place) => textOf(row[place] ?? null, column));
      return {
        title: h("span", {}, bdi(titles.at(-1) ?? ""), h("small", {}, titles.slice(0, -1).join(", "))),
        cells: shown.map(({ column, place }) => {
          const cell = row[place] ?? null;
          const value = typeof cell === "object" && cell !== null && "low" in cell ? cell.value : cell;
          const isShaded = column.form !== "count" && typeof value === "number";
          const name = [...titles.filter(Boolean), noteText(column.title)].join(", ");
          return {
            text: () => textOf(cell, { ...column, shows: "value" }),
            share: isShaded ? (high > low ? (value - low) / (high - low) : 0) : null,
            isOwn: typeof cell === "object" && cell !== null && "is_own" in cell && cell.is_own,
            details: () => `${name}: ${textOf(cell, { ...column, shows: "all" })}`,
          };
        }),
      };
    }),
    () => `from ${written(low, form)} to ${written(high, form)}`,
  );
}

/**
 * Make a choice of tables, of which the first one is shown.
 * @param {TableChoice} choice
 * @param {string} artifact
 */
function choiceOf({ title, tables }, artifact) {
  const place = h("div");
  const show = () => place.replaceChildren(...tables.slice(Number(field.value), Number(field.value) + 1).map((one) => tableOf(one, artifact)));
  const options = tables.map((one, index) => h("option", { value: index }, noteText(one.title)));
  const field = h("select", { id: `choice-${tables[0]?.name}`, onchange: show }, ...options);
  show();
  return h("div", {}, h("div", { class: "bar" }, labelled(noteText(title), field)), place);
}

/**
 * Make a chart where the axis has numbers, with a choice of axes, or else the picture.
 * @param {Figure} figure
 * @param {string} artifact
 * @param {FileRecord[]} files
 * @param {AbortSignal} signal
 * @returns {(Element | null)[]}
 */
function figureOf(figure, artifact, files, signal) {
  if (figure.joins.length) return [languageTree(noteText(figure.title), figure.joins, (language) => figure.leaves[language] ?? language)];
  const shown = picture(artifact, files, figure.name, noteText(figure.text), signal);
  if (!figure.axes[0]?.places.length) return shown ? [folded(noteText(figure.title), shown)] : [];
  const per = figure.form === "loss" ? "token" : figure.form === "per_char" ? "character" : null;
  /** @type {import("./curves.js").Axis} */
  const y = per ? { name: "loss", per } : { name: noteText(figure.y), ...(figure.form === "share" ? { unit: "share" } : {}) };
  const chart = new Chart({ title: per ? `Loss per ${per}` : noteText(figure.title), x: { name: "" }, y });
  const axis = h(
    "select",
    { id: `axis-${figure.name}`, onchange: draw },
    ...figure.axes.map(({ title }, index) => h("option", { value: index }, noteText(title))),
  );
  const isLog = h("input", { id: `log-${figure.name}`, type: "checkbox", checked: !figure.axes[0]?.is_linear, onchange: draw });
  function draw() {
    const { title, places } = figure.axes[Number(axis.value)] ?? { title: NOTHING, places: [] };
    chart.set({ x: { name: noteText(title), isLog: isLog.checked } });
    chart.show(figure.series.map((series, index) => lineOf(series, index, places, figure, isLog.checked)));
  }
  draw();
  const more = figure.n_left_out ? `${decimal(figure.n_left_out, 0)} more in ${figure.file}.` : null;
  const bar = h("div", { class: "bar" }, labelled("Axis", axis), labelled("Logarithmic", isLog));
  return [h("h3", {}, () => noteText(figure.title)), bar, more ? h("p", { class: "quiet" }, more) : null, chart.element];
}

/**
 * Make a line with its intervals; the first one has links to what stands at its places.
 * @param {Series} series
 * @param {number} index
 * @param {number[]} places
 * @param {Figure} figure
 * @param {boolean} isLog the axis has no place for 0
 */
function lineOf({ name, values }, index, places, { form, addresses }, isLog) {
  const points = (/** @type {(one: Estimate) => number | null} */ part) =>
    values.flatMap((one, place) => {
      const [x, number] = [places[place], one && part(one)];
      if (x === undefined || number === null) return [];
      return [/** @type {[number, number]} */ ([x, form === "per_char" ? natsOf(number) : number])];
    });
  const mean = points(({ value }) => value);
  const low = points((one) => one.low);
  const marks = index ? [] : addresses.map((address, place) => ({ x: places[place] ?? 0, label: address, href: `#/${address}` }));
  return {
    name,
    label: name,
    style: `run${index}`,
    points: mean,
    ...(low.length ? { band: { mean, low, high: points((one) => one.high) } } : {}),
    marks: marks.filter(({ x }) => x > 0 || !isLog),
  };
}
