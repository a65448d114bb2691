/** The controls of a chart of training curves; a browser tab remembers them for all charts. */

import { areUnlike, partsOf } from "./curve_lines.js";
import { h } from "./elements.js";

/** @import { CurveName, Ratio } from "./curve_lines.js" */
/** @import { Curve } from "./records.js" */
/** @import { Axis } from "./curves.js" */
/** @typedef {"loss" | "loss_per_char" | keyof typeof OF_ONE_CURVE} SeriesName */
/** @typedef {"step" | "tokens" | "words" | "seconds"} AxisName */

/** @type {Axis} */
const LOSS = { name: "loss", per: "token" };
/** @type {Axis} */
const LOSS_PER_CHAR = { name: "loss", per: "character" };
const OF_ONE_CURVE = {
  train: { title: "Training loss", y: LOSS, factor: 1 },
  validation: { title: "Validation loss", y: LOSS, factor: 1 },
  train_per_char: { title: "Training loss per character", y: LOSS_PER_CHAR, factor: 1 },
  validation_per_char: { title: "Validation loss per character", y: LOSS_PER_CHAR, factor: 1 },
  grad_norm: { title: "Gradient norm", y: { name: "gradient norm" }, factor: 1 },
  learning_rate: { title: "Learning rate", y: { name: "learning rate" }, factor: 1 },
  tokens_per_second: { title: "Speed", y: { name: "speed", unit: "tokens per second" }, factor: 1 },
  cpu_cores: { title: "CPU", y: { name: "CPU", unit: "cores" }, factor: 1 },
  memory_bytes: { title: "Memory", y: { name: "memory", unit: "GB" }, factor: 1e-9 },
  gpu_memory_bytes: { title: "GPU memory", y: { name: "GPU memory", unit: "GB" }, factor: 1e-9 },
};
/** @type {Record<SeriesName, {title: string, y: Axis, factor: number}>} */
export const SERIES = {
  loss: { title: "Loss", y: LOSS, factor: 1 },
  loss_per_char: { title: "Loss per character", y: LOSS_PER_CHAR, factor: 1 },
  ...OF_ONE_CURVE,
};

/** @type {Record<AxisName, string>} */
const AXES = { step: "Steps", tokens: "Tokens", words: "Words", seconds: "Time" };

export class CurveSettings {
  #smoothing = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: "0", id: "smoothing", oninput: () => this.#change() });
  #share = h("output", { for: "smoothing" }, "0");
  #isLog = h("input", { type: "checkbox", onchange: () => this.#change() });
  /** True if the person has chosen the series. */
  #isChosen = false;
  #onchange;
  #series;
  #axis;

  /**
   * @param {() => void} onchange
   * @param {boolean} hasPairs training and validation loss can be shown together
   */
  constructor(onchange, hasPairs) {
    this.#onchange = onchange;
    const series = Object.entries(hasPairs ? SERIES : OF_ONE_CURVE);
    this.#series = choice(series.map(([name, { title }]) => [name, title]), () => this.#change(true));
    this.#axis = choice(Object.entries(AXES), () => this.#change());
    this.element = h(
      "div",
      { class: "bar settings" },
      h("label", {}, "Show ", this.#series),
      h("label", {}, "Over ", this.#axis),
      h("label", {}, "Smoothing ", this.#smoothing, " ", this.#share),
      h("label", {}, this.#isLog, " Logarithmic"),
    );
    this.#restore();
  }

  get series() {
    return /** @type {SeriesName} */ (this.#series.value);
  }

  get axis() {
    return /** @type {AxisName} */ (this.#axis.value);
  }

  /** The weight of the exponential moving average. */
  get smoothing() {
    return Number(this.#smoothing.value);
  }

  get isLog() {
    return this.#isLog.checked;
  }

  /**
   * Let only series be chosen that a curve has, and axes that all have. Until a person chooses a series, losses of
   * tokens that are not alike are per character.
   * @param {Curve[]} curves
   * @param {Ratio[]} ratios those of the curves
   */
  offer(curves, ratios) {
    const has = (/** @type {string} */ series, /** @type {number} */ at) =>
      series === "loss" ||
      partsOf(/** @type {SeriesName} */ (series), ratios[at]).some(({ name, factor }) => factor !== null && curves[at]?.[name].length);
    const hasAxis = (/** @type {string} */ axis) => (/** @type {Curve} */ curve) =>
      axis === "step" || curve[/** @type {CurveName} */ (axis)].length > 0;
    for (const option of this.#series.options) option.disabled = !curves.some((_, at) => has(option.value, at));
    for (const option of this.#axis.options) option.disabled = !curves.every(hasAxis(option.value));
    if (!this.#isChosen) this.#series.selectedIndex = 0;
    if (!this.#isChosen && areUnlike(ratios)) this.#series.value = `${this.series}_per_char`;
    for (const select of [this.#series, this.#axis]) if (select.selectedOptions[0]?.disabled) select.selectedIndex = 0;
  }

  #change(isSeries = false) {
    this.#isChosen ||= isSeries;
    this.#share.textContent = this.#smoothing.value;
    for (const [name, value] of Object.entries(this.#values())) sessionStorage.setItem(`curves-${name}`, value);
    this.#onchange();
  }

  #values() {
    const series = this.#isChosen ? { series: this.series } : {};
    return { ...series, axis: this.axis, smoothing: this.#smoothing.value, log: String(this.isLog) };
  }

  #restore() {
    const kept = (/** @type {string} */ name) => sessionStorage.getItem(`curves-${name}`);
    for (const [select, name] of /** @type {const} */ ([[this.#series, "series"], [this.#axis, "axis"]])) {
      const wanted = kept(name);
      if ([...select.options].some((option) => option.value === wanted)) {
        select.value = wanted ?? "";
        this.#isChosen ||= name === "series";
      }
    }
    this.#share.textContent = this.#smoothing.value = kept("smoothing") ?? "0";
    this.#isLog.checked = kept("log") === "true";
  }
}

/**
 * @param {[value: string, text: string][]} options
 * @param {() => void} onchange
 */
function choice(options, onchange) {
  return h("select", { onchange }, ...options.map(([value, text]) => h("option", { value }, text)));
}
