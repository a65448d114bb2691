/** The curves of runs and groups as they grow, over steps, tokens, words or time; a zoom is read in finer detail. */

import { read } from "./api.js";
import { CurveSettings, SERIES } from "./curve_settings.js";
import { NO_RATIO, axisOf, linesOfCurve, over, partsOf, scaled, stepAt } from "./curve_lines.js";
import { Chart } from "./curves.js";
import { failure, h } from "./elements.js";

/** @import { Curve, GroupCurve, KeptCheckpoint, MetricsProgress, Points } from "./records.js" */
/** @import { Named, Ratio } from "./curve_lines.js" */
/** @import { Line, Mark, Range } from "./curves.js" */
/**
 * A run or a group, and its lines.
 * @typedef {{path: string, train: Named, validation?: Named, isEnded?: boolean, ratio?: Ratio}} Source
 */
/** @typedef {{curve: Curve, bands: GroupCurve | null}} Found the curve of a group has the means of its bands */

const LIVE = /** @type {const} */ (["grad_norm", "learning_rate", "tokens_per_second", "cpu_cores", "memory_bytes", "tokens", "words"]);
/** Stands where runs such as n-grams are trained in one step. */
const NO_CURVES = "These runs have no curves: each has its losses in the list.";
/** Points of a curve that the page asks for, alone or in a list. */
const POINTS = { alone: 1000, listed: 200 };

/**
 * Read and show the curves of a run. Their element is there at once.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function runCurves(runId, signal) {
  const train = { name: "train", label: "train", style: "run0" };
  const validation = { name: "validation", label: "validation", style: "run1 dashed" };
  return new TrainingCurves([{ path: `/runs/${runId}`, train, validation }], signal);
}

/**
 * Make the button that hides and shows the curve of a run.
 * @param {string} name
 * @param {string} style of the curve
 * @param {boolean} isHidden
 * @param {() => void} turn
 */
export function curveButton(name, style, isHidden, turn) {
  const attributes = { type: "button", class: "curve-button", "aria-pressed": String(!isHidden), "aria-label": `Curve of ${name}` };
  return h("button", { ...attributes, title: isHidden ? "Show the curve" : "Hide the curve", onclick: turn }, h("i", { class: `swatch ${style}` }));
}

/**
 * Read and show the curves of a group: means, with bands from the lowest to the highest number.
 * @param {string} groupId
 * @param {AbortSignal} signal
 */
export function groupCurves(groupId, signal) {
  const train = { name: "train, mean", label: "train", style: "run0" };
  const validation = { name: "validation, mean", label: "validation", style: "run1 dashed" };
  return new TrainingCurves([{ path: `/groups/${groupId}`, train, validation }], signal);
}

/** The curves of one or several runs or groups in one chart; in a list, each has one line. */
export class TrainingCurves {
  #isList;
  #sources;
  #signal;
  #points;
  /** @type {Map<string, Found>} the curves of ended runs by their paths */
  #ended = new Map();
  /** @type {Found[]} */
  #found = [];
  /** @type {{steps: Range, found: Found[]} | null} what is zoomed to */
  #detail = null;
  #isReading = false;
  /** @type {MetricsProgress[]} events that came while the curves were read, which may lack them */
  #early = [];
  /** @type {{step: number, mark: Mark}[]} */
  #checkpoints = [];
  /** Time of the last event, in milliseconds. */
  #clock = NaN;
  #isDrawing = false;
  #settings;
  #chart = new Chart({ title: "Loss", x: { name: "step" }, y: SERIES.loss.y, empty: "Reading the curves…", onzoom: (range) => this.#zoom(range) });

  /**
   * @param {Source[]} sources
   * @param {AbortSignal} signal
   * @param {boolean} isList
   */
  constructor(sources, signal, isList = false) {
    this.#sources = sources;
    this.#signal = signal;
    this.#isList = isList;
    this.#points = isList ? POINTS.listed : POINTS.alone;
    this.#settings = new CurveSettings(() => this.#draw(), !isList);
    if (isList) this.#chart.set({ least: 220 });
    this.element = h("div", {}, this.#settings.element, this.#chart.element);
    this.#chart.show([]);
    /** The number of the last event in the curve of the run, for the stream of those after it; "" without a curve. */
    this.lastEventId = this.reload();
  }

  /**
   * Add the numbers of an event of the run.
   * @param {MetricsProgress} event
   */
  add(event) {
    if (this.#isReading) this.#early.push(event);
    const curve = this.#found[0]?.curve;
    if (!curve) return;
    this.#extend(curve, event);
    if (curve.train.length > 2 * this.#points && !this.#isReading) this.reload();
    if (!this.#isDrawing) this.#isDrawing = Boolean(requestAnimationFrame(() => this.#draw())); // many may come at once
  }

  /**
   * Show checkpoints on the curve of the training, each with a link.
   * @param {KeptCheckpoint[]} kept
   * @param {(step: number) => string} addressOf
   */
  setCheckpoints(kept, addressOf) {
    this.#checkpoints = kept.map(({ step }) => {
      const label = `Checkpoint of step ${step.toLocaleString("en")}`;
      return { step, mark: { x: step, label, href: addressOf(step) } };
    });
    this.#draw();
  }

  /**
   * Show other runs.
   * @param {Source[]} sources
   */
  async show(sources) {
    const known = sources.map(({ path, isEnded }) => (isEnded && this.#ended.get(path)) || null);
    this.#sources = sources;
    this.#found = known.filter((one) => one !== null);
    if (this.#found.length < sources.length) return void (await this.reload());
    this.#offer();
    this.#draw();
  }

  /**
   * Take the tokens per character of the only run, which may be known after its first validation.
   * @param {Ratio} ratio
   */
  setRatio(ratio) {
    for (const source of this.#sources) source.ratio = ratio;
    if (this.#found.length) this.#offer();
  }

  #offer() {
    const ratios = this.#sources.map(({ ratio }) => ratio ?? NO_RATIO);
    this.#settings.offer(this.#found.map(({ curve }) => curve), ratios);
  }

  /** Read the curves again; those of ended runs stay as they are. */
  async reload() {
    this.#isReading = true;
    const sources = this.#sources;
    try {
      const found = await Promise.all(
        sources.map(async ({ path, isEnded }) => {
          const one = (isEnded && this.#ended.get(path)) || (await this.#read(path, ""));
          if (isEnded) this.#ended.set(path, one);
          return one;
        }),
      );
      if (sources !== this.#sources) return ""; // others are shown by now
      this.#found = found;
      const [first] = this.#found;
      for (const event of this.#early.splice(0)) if (first) this.#extend(first.curve, event);
      this.#offer();
      this.#draw();
      return String(first?.curve.last_event_id ?? "");
    } catch (error) {
      if (!this.#signal.aborted && this.#found.length === 0) this.element.replaceChildren(failure(error));
      return "";
    } finally {
      this.#isReading = false;
    }
  }

  /**
   * @param {string} path of a run or a group
   * @param {string} range
   * @returns {Promise<Found>}
   */
  async #read(path, range) {
    /** @type {Curve | GroupCurve} */
    const found = await read(`${path}/curve?points=${this.#points}${range}`, this.#signal);
    return "group_id" in found ? { curve: meansOf(found), bands: found } : { curve: found, bands: null };
  }

  /**
   * Add a point to each curve.
   * @param {Curve} curve
   * @param {MetricsProgress} event
   */
  #extend(curve, event) {
    const time = Date.parse(event.ts);
    const passed = Math.max(0, time - this.#clock) / 1000 || 0;
    this.#clock = time;
    put(curve.train, event.step, event.train_loss);
    put(curve.validation, event.step, event.val_loss);
    for (const name of LIVE) put(curve[name], event.step, event[name]);
    put(curve.gpu_memory_bytes, event.step, event.gpu_memory_bytes && Math.max(...event.gpu_memory_bytes));
    put(curve.seconds, event.step, (curve.seconds.at(-1)?.[1] ?? 0) + passed);
  }

  /** @param {Range | null} range of the x axis */
  async #zoom(range) {
    const curves = this.#found.map(({ curve }) => curve);
    this.#detail = null;
    if (!range || curves.every((curve) => curve.total_points <= curve.train.length)) return this.#draw(); // all are here
    const { axis } = this.#settings;
    const { factor } = axisOf(axis, curves);
    const places = curves.flatMap((curve) => range.map((place) => stepAt(curve, axis, place / factor)));
    const steps = /** @type {Range} */ ([Math.floor(Math.min(...places)), Math.ceil(Math.max(...places))]);
    try {
      const inside = `&from_step=${steps[0]}&to_step=${steps[1]}`;
      const found = await Promise.all(this.#sources.map(({ path }) => this.#read(path, inside)));
      if (this.#chart.range !== range) return; // another zoom came after it
      this.#detail = { steps, found };
      this.#draw();
    } catch {
      return; // the curves stay as they are, less fine
    }
  }

  #draw() {
    this.#isDrawing = false;
    if (this.#found.length === 0) return;
    const curves = this.#found.map(({ curve }) => curve);
    const { series, axis, isLog } = this.#settings;
    const { x, factor } = axisOf(axis, curves);
    const { title, y } = SERIES[series];
    const isOfPoints = this.#isList && curves.every(({ train }) => train.length < 2);
    this.#chart.set({ title, x, y: { ...y, isLog }, empty: isOfPoints ? NO_CURVES : "There are no losses yet." });
    if (isOfPoints) return this.#chart.show([]);
    const detail = this.#chart.range && this.#detail; // another axis has ended the zoom
    const found = this.#found.map((one, at) => (detail ? joined(one, detail.steps, detail.found[at] ?? one) : one));
    const lines = found.flatMap((one, at) => this.#linesOf(one, at, factor));
    const first = found[0]?.curve;
    if (first && lines[0]) {
      lines[0].marks = this.#checkpoints.map(({ step, mark }) => ({
        ...mark,
        x: over(first, axis, [[step, 0]], factor)[0]?.[0] ?? NaN,
      }));
    }
    this.#chart.show(lines);
  }

  /**
   * @param {Found} found
   * @param {number} at index of its source
   * @param {number} factor of the x axis
   * @returns {Line[]}
   */
  #linesOf({ curve, bands }, at, factor) {
    const source = this.#sources[at];
    if (!source) return [];
    const { series, axis } = this.#settings;
    const lines = linesOfCurve(curve, this.#settings, factor, source, source.ratio);
    if (!bands) return lines;
    return partsOf(series, source.ratio).flatMap((part, index) => {
      const band = bands[part.name];
      const line = lines[index];
      if (!line || !("mean" in band)) return [];
      const drawn = (/** @type {Points} */ points) => over(curve, axis, scaled(points, part.factor), factor);
      return { ...line, band: { mean: drawn(band.mean), low: drawn(band.low), high: drawn(band.high) } };
    });
  }
}

/**
 * Return the means of a group as the curve of a run.
 * @param {GroupCurve} group
 * @returns {Curve}
 */
function meansOf(group) {
  const means = Object.entries(group).map(([name, value]) => [name, value instanceof Object && "mean" in value ? value.mean : value]);
  return { run_id: group.group_id, last_event_id: 0, ...Object.fromEntries(means) };
}

/**
 * Put a number at its step; a resumed training comes to earlier steps again.
 * @param {Points} points
 * @param {number} step
 * @param {number | null} value
 */
function put(points, step, value) {
  if (value === null) return;
  const at = points.findLastIndex(([known]) => known <= step);
  if (points[at]?.[0] === step) points[at] = [step, value];
  else points.splice(at + 1, 0, [step, value]);
}

/**
 * Return curves with the points of finer ones between two steps; those that have fewer there stay.
 * @template {object} Curves lists of points by their names, in records of any depth
 * @param {Curves} curves
 * @param {Range} steps
 * @param {Curves} detail
 * @returns {Curves}
 */
function joined(curves, [from, to], detail) {
  const finer = new Map(Object.entries(detail));
  const parts = Object.entries(curves).map(([name, part]) => {
    if (!Array.isArray(part)) return [name, part instanceof Object ? joined(part, [from, to], finer.get(name)) : part];
    const points = /** @type {Points} */ (part);
    const inside = points.filter(([step]) => step >= from && step <= to);
    const fine = finer.get(name);
    const between = fine.length < inside.length ? inside : fine;
    return [name, [...points.filter(([step]) => step < from), ...between, ...points.filter(([step]) => step > to)]];
  });
  return Object.fromEntries(parts);
}
