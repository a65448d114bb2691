/** The curves of one run as they grow, over steps, tokens, words or time; a zoom is read from the server in detail. */

import { read } from "./api.js";
import { CurveSettings, SERIES } from "./curve_settings.js";
import { axisOf, linesOfCurve, over, POINTS, stepAt } from "./curve_lines.js";
import { Chart, LOSS } from "./curves.js";
import { failure, h } from "./elements.js";

/** @import { Curve, KeptCheckpoint, MetricsProgress, Points } from "./records.js" */
/** @import { Mark, Range } from "./curves.js" */

const NAMES = {
  train: { name: "train", label: "train", style: "run0" },
  validation: { name: "validation", label: "validation", style: "run1 dashed" },
};
const LIVE = /** @type {const} */ (["grad_norm", "learning_rate", "tokens_per_second", "tokens", "words"]);

/**
 * Read and show the curves of a run. Their element is there at once.
 * @param {string} runId
 * @param {AbortSignal} signal
 */
export function runCurves(runId, signal) {
  return new RunCurves(runId, signal);
}

class RunCurves {
  #runId;
  #signal;
  /** @type {Curve | null} */
  #curve = null;
  /** @type {{steps: Range, curve: Curve} | null} what is zoomed to */
  #detail = null;
  /** @type {MetricsProgress[]} events that came before the curves */
  #early = [];
  /** @type {{step: number, mark: Mark}[]} */
  #checkpoints = [];
  /** Time of the last event, in milliseconds. */
  #clock = NaN;
  #isDrawing = false;
  #settings = new CurveSettings(() => this.#draw());
  #chart = new Chart({ ...LOSS, empty: "Reading the curves…", onzoom: (range) => this.#zoom(range) });

  /**
   * @param {string} runId
   * @param {AbortSignal} signal
   */
  constructor(runId, signal) {
    this.#runId = runId;
    this.#signal = signal;
    this.element = h("div", {}, this.#settings.element, this.#chart.element);
    this.#chart.show([]);
    /** The number of the last event in the curves, for the stream of those after it; "" if they cannot be read. */
    this.lastEventId = this.#load();
  }

  /**
   * Add the numbers of an event.
   * @param {MetricsProgress} event
   */
  add(event) {
    const curve = this.#curve;
    if (!curve) {
      this.#early.push(event);
      return;
    }
    this.#extend(curve, event);
    if (curve.train.length > 2 * POINTS) this.#load();
    if (!this.#isDrawing) this.#isDrawing = Boolean(requestAnimationFrame(() => this.#draw())); // many may come at once
  }

  /**
   * Show checkpoints on the curve of the training, each with a link.
   * @param {KeptCheckpoint[]} kept
   * @param {(name: string) => string} addressOf the model RUN@step
   */
  setCheckpoints(kept, addressOf) {
    this.#checkpoints = kept.map(({ step }) => {
      const label = `Checkpoint of step ${step.toLocaleString("en")}`;
      return { step, mark: { x: step, label, href: addressOf(`${this.#runId}@${step}`) } };
    });
    this.#draw();
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

  async #load() {
    try {
      const curve = await this.#read("");
      this.#curve = curve;
      for (const event of this.#early.splice(0)) this.#extend(curve, event);
      this.#chart.set({ empty: "There are no losses yet." });
      this.#settings.offer([curve]);
      this.#draw();
      return String(curve.last_event_id);
    } catch (error) {
      if (!this.#signal.aborted) this.element.replaceChildren(failure(error));
      return "";
    }
  }

  /**
   * @param {string} range
   * @returns {Promise<Curve>}
   */
  #read(range) {
    return read(`/runs/${this.#runId}/curve?points=${POINTS}${range}`, this.#signal);
  }

  /** @param {Range | null} range of the x axis */
  async #zoom(range) {
    const curve = this.#curve;
    this.#detail = null;
    if (!range || !curve) return;
    const { factor } = axisOf(this.#settings.axis, [curve]);
    const places = range.map((place) => stepAt(curve, this.#settings.axis, place / factor));
    const steps = /** @type {Range} */ ([Math.floor(places[0] ?? 0), Math.ceil(places[1] ?? 0)]);
    if (curve.total_points <= curve.train.length) return; // all of them are here
    try {
      const detail = await this.#read(`&from_step=${steps[0]}&to_step=${steps[1]}`);
      if (this.#chart.range !== range) return; // another zoom came after it
      this.#detail = { steps, curve: detail };
      this.#draw();
    } catch {
      return; // the curve stays as it is, less fine
    }
  }

  #draw() {
    this.#isDrawing = false;
    if (!this.#curve) return;
    const curve = this.#detail ? joined(this.#curve, this.#detail.steps, this.#detail.curve) : this.#curve;
    const { series, axis, isLog } = this.#settings;
    const { x, factor } = axisOf(axis, [curve]);
    const { title, y } = SERIES[series];
    this.#chart.set({ title, x, y: { ...y, isLog } });
    const lines = linesOfCurve(curve, this.#settings, factor, NAMES);
    if (lines[0]) {
      lines[0].marks = this.#checkpoints.map(({ step, mark }) => ({ ...mark, x: over(curve, axis, [[step, 0]], factor)[0]?.[0] ?? NaN }));
    }
    this.#chart.show(lines);
  }
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
 * Return curves with more points between two steps.
 * @param {Curve} curve
 * @param {Range} steps
 * @param {Curve} detail
 * @returns {Curve}
 */
function joined(curve, [from, to], detail) {
  const parts = Object.entries(curve).map(([name, points]) => {
    if (!Array.isArray(points)) return [name, points];
    const inside = /** @type {Points} */ (detail[/** @type {keyof Curve} */ (name)]);
    return [name, [...points.filter(([step]) => step < from), ...inside, ...points.filter(([step]) => step > to)]];
  });
  return Object.fromEntries(parts);
}
