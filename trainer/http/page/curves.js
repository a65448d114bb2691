/** A chart of lines that can change: it is zoomed, read at a position and downloaded, and has a table of its numbers. */

import { chartTools, csvOf } from "./chart_files.js";
import { h, svg, table } from "./elements.js";
import { capital, loss } from "./numbers.js";
import { apart, extent, logTicks, thinned, ticks, tickText } from "./scale.js";
import { inUnit, onUnitChange, unit } from "./units.js";

/** @import { CurveBand, Points } from "./records.js" */
/**
 * `per`: the numbers are nats per token or character, and are shown in the unit of the page.
 * @typedef {{name: string, unit?: string, per?: "token" | "character", isLog?: boolean}} Axis
 */
/** @typedef {{x: number, label: string, href: string}} Mark a link on the line */
/** @typedef {[low: number, high: number]} Range */
/**
 * `label` stands at the end of the line, `raw` is drawn faintly behind it.
 * @typedef {{name: string, label: string, style: string, points: Points, raw?: Points, band?: CurveBand, marks?: Mark[]}} Line
 */
/**
 * `empty` stands where there are no lines; `onzoom` gets the range of x that is shown, null for all of it.
 * @typedef {{title: string, x: Axis, y: Axis, empty?: string, onzoom?: (range: Range | null) => void}} Options
 */

const LABEL = 14;
/** Relative error of a place that came from its logarithm. */
const ROUNDING = 1e-9;
const MARGIN = { top: 12, right: 76, bottom: 44, left: 60 };
const MAX_ROWS = 200;
/** A shorter drag is a click. */
const MIN_DRAG = 6;

export class Chart {
  #options;
  /** @type {Line[]} */
  #lines = [];
  /** @type {number[]} all x of the lines that are shown */
  #places = [];
  /** @type {Range | null} */
  #zoom = null;
  /** @type {Range} */
  #shown = [0, 1];
  /** @type {(x: number) => number} pixels of a value */
  #x = () => 0;
  #right = 0;
  /** @type {number | null} where the pointer went down */
  #start = null;
  #image = h("div");
  #cursor = h("div", { class: "cursor", hidden: true });
  #selection = h("div", { class: "selection", hidden: true });
  #marks = h("div");
  #drawing;
  #slider = h("input", {
    type: "range",
    min: 0,
    value: 0,
    "aria-label": "Position on the curves",
    oninput: () => this.#read(),
  });
  #readout = h("p", { class: "readout" });
  #tools;
  #numbers = h("div");
  #details = h("details", { ontoggle: () => this.#fillTable() }, h("summary", {}, "Curves as a table"), this.#numbers);

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    this.#drawing = h("div", { class: "chart" }, this.#image, this.#cursor, this.#selection, this.#marks);
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) =>
      h("button", { type: "button", onclick: act, "aria-label": `${name}: ${options.title}` }, name);
    this.#tools = h(
      "div",
      { class: "bar tools" },
      button("Zoom in", () => this.#scaleBy(0.5)),
      button("Zoom out", () => this.#scaleBy(2)),
      button("Earlier", () => this.#shiftBy(-0.5)),
      button("Later", () => this.#shiftBy(0.5)),
      button("Reset zoom", () => this.zoom(null)),
      ...chartTools(options.title, () => ({
        title: this.#options.title,
        image: this.#image.querySelector("svg"),
        csv: () => csvOf(named(this.#options.x), this.#lines, unitOf(this.#options.y, "nats")),
      })),
    );
    this.element = h("div", {}, this.#drawing, this.#slider, this.#readout, this.#tools, this.#details);
    onUnitChange(this.element, () => this.#draw());
    this.#listen();
    new ResizeObserver(() => this.#draw()).observe(this.#drawing);
  }

  /** The range of x that is zoomed to. */
  get range() {
    return this.#zoom;
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.#lines = lines.filter((line) => line.points.length > 0);
    this.#draw();
    this.#fillTable();
  }

  /**
   * Change the title or the axes; another x axis ends the zoom.
   * @param {Partial<Options>} options
   */
  set(options) {
    if (options.x && options.x.name !== this.#options.x.name) this.#zoom = null;
    this.#options = { ...this.#options, ...options };
    this.#draw();
    this.#fillTable();
  }

  /**
   * Show a range of x; all of it if null.
   * @param {Range | null} range
   */
  zoom(range) {
    this.#zoom = range;
    this.#draw();
    this.#options.onzoom?.(range);
  }

  #draw() {
    const { title, x: across, y: up, empty } = this.#options;
    const lines = this.#lines;
    const width = Math.max(260, this.#drawing.clientWidth);
    const nLabels = lines.filter((line) => line.label).length;
    const height = Math.max(300, nLabels * LABEL + MARGIN.top + MARGIN.bottom);
    const bottom = height - MARGIN.bottom;
    const right = (this.#right = width - MARGIN.right);
    const plot = right - MARGIN.left;
    const xOf = across.isLog ? Math.log10 : Number;
    const yOf = up.isLog ? Math.log10 : Number;
    const isPoint = (/** @type {[number, number]} */ [one, two]) => Number.isFinite(xOf(one)) && Number.isFinite(yOf(two));
    const pointsOf = (/** @type {Points} */ points) =>
      (up.per ? points.map(([place, nats]) => /** @type {[number, number]} */ ([place, inUnit(nats)])) : points).filter(isPoint);
    const sets = lines.map(({ points, raw = [], band }) => ({
      points: pointsOf(points),
      raw: pointsOf(raw),
      low: pointsOf(band?.low ?? []),
      high: pointsOf(band?.high ?? []),
    }));
    const all = sets.flatMap(({ points, raw, low, high }) => [points, raw, low, high]);
    const [first, last] = extent(all.flatMap((points) => points.map(([place]) => xOf(place))));
    const full = /** @type {Range} */ ([across.isLog ? first : Math.min(0, first), last]);
    const [from, to] = this.#zoom ? this.#zoom.map(xOf) : full;
    const seen = all.map((points) => within(points, this.#zoom));
    const [least, most] = extent(seen.flatMap((points) => points.map(([, value]) => yOf(value))));
    const [low, high] = [least - (most - least) / 16, most + (most - least) / 16];
    const back = (/** @type {number} */ value, /** @type {Axis} */ axis) => (axis.isLog ? 10 ** value : value);
    const marksOf = (/** @type {Axis} */ axis, /** @type {Range} */ range, /** @type {number} */ count) =>
      (axis.isLog ? logTicks : ticks)(back(range[0], axis), back(range[1], axis), count);
    const x = (this.#x = (place) => MARGIN.left + ((xOf(place) - (from ?? 0)) / ((to ?? 1) - (from ?? 0))) * (right - MARGIN.left));
    const y = (/** @type {number} */ value) => bottom - ((yOf(value) - low) / (high - low)) * (bottom - MARGIN.top);
    this.#shown = [back(from ?? 0, across), back(to ?? 1, across)];
    const path = (/** @type {Points} */ points) =>
      points.map(([place, value], at) => `${at ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const seenOf = (/** @type {number} */ index, /** @type {number} */ part) => seen[index * 4 + part] ?? [];
    const ends = apart(
      lines.map((_, index) => Math.max(MARGIN.top, Math.min(bottom, y(seenOf(index, 0).at(-1)?.[1] ?? back(low, up))))),
      LABEL,
      bottom,
    );
    const shapes = lines.flatMap((line, index) => [
      line.band
        ? svg("path", { class: `band ${line.style}`, d: `${path([...seenOf(index, 2), ...[...seenOf(index, 3)].reverse()])}Z` })
        : null,
      line.raw ? svg("path", { class: `raw ${line.style}`, d: path(seenOf(index, 1)) }) : null,
    ]);
    const curves = lines.flatMap((line, index) => {
      const points = seenOf(index, 0);
      const [only] = points;
      return [
        svg("path", { class: `line ${line.style}`, d: path(points) }),
        only && points.length === 1 ? svg("circle", { class: `line ${line.style}`, cx: x(only[0]), cy: y(only[1]), r: 3 }) : null,
        ...this.#marksOf(line, sets[index]?.points ?? [])
          .filter((mark) => isPoint(mark))
          .map(([place, value]) => svg("circle", { class: `mark ${line.style}`, cx: x(place), cy: y(value), r: 5 })),
      ];
    });
    const image = svg(
      "svg",
      { role: "img", "aria-label": `${title}: ${describe(lines, this.#options)}`, viewBox: `0 0 ${width} ${height}`, width, height },
      ...marksOf(up, [low, high], 5).flatMap((value) => [
        svg("path", { class: "grid", d: `M${MARGIN.left} ${y(value)}H${right}` }),
        svg("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)),
      ]),
      ...marksOf(across, [from ?? 0, to ?? 1], width / 110).map((place) =>
        svg("text", { x: x(place), y: bottom + 18, "text-anchor": "middle" }, tickText(place)),
      ),
      svg("path", { class: "axis", d: `M${MARGIN.left} ${MARGIN.top}V${bottom}H${right}` }),
      svg("text", { x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, named(across)),
      svg(
        "text",
        { transform: `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        named(up),
      ),
      svg(
        "svg", // cuts off what a zoom leaves out
        { x: MARGIN.left, width: plot, height: bottom, viewBox: `${MARGIN.left} 0 ${plot} ${bottom}` },
        ...shapes,
        ...curves,
      ),
      ...lines.map((line, index) =>
        svg("text", { class: `end ${line.style}`, x: right + 6, y: (ends[index] ?? 0) + 4 }, line.label),
      ),
    );
    this.#image.replaceChildren(lines.length ? image : h("p", {}, empty ?? "There are no numbers yet."));
    this.#placeMarks(sets.map(({ points }) => points), y);
    this.#slider.hidden = this.#readout.hidden = this.#tools.hidden = lines.length === 0;
    this.#drawing.style.setProperty("--top", `${MARGIN.top}px`);
    this.#drawing.style.setProperty("--bottom", `${MARGIN.bottom}px`);
    this.#slider.style.setProperty("margin-inline-start", `${MARGIN.left - 8}px`);
    this.#slider.style.setProperty("width", `${right - MARGIN.left + 16}px`);
    const places = new Set(lines.flatMap((line) => line.points.map(([place]) => place)));
    this.#places = [...places]
      .filter((place) => place >= this.#shown[0] * (1 - ROUNDING) && place <= this.#shown[1] * (1 + ROUNDING))
      .sort((one, two) => one - two);
    const isAtEnd = !this.#slider.max || this.#slider.value === this.#slider.max;
    this.#slider.max = String(Math.max(0, this.#places.length - 1));
    if (isAtEnd) this.#slider.value = this.#slider.max;
    this.#read();
  }

  /**
   * Return the places of a line's marks: on the line between its points, and outside of them at the nearest point.
   * @param {Line} line
   * @param {Points} points
   * @returns {Points}
   */
  #marksOf({ marks = [] }, points) {
    return marks.map((mark) => {
      const next = points.findIndex(([place]) => place >= mark.x);
      const after = points.at(next);
      const before = points[Math.max(0, next - 1)];
      if (!after || !before) return [mark.x, NaN];
      if (next < 1 || after[0] === mark.x) return [mark.x, after[1]];
      const share = (mark.x - before[0]) / (after[0] - before[0]);
      return [mark.x, before[1] + share * (after[1] - before[1])];
    });
  }

  /**
   * Put the links of the marks over the image: their elements stay, so that they keep the focus.
   * @param {Points[]} points of each line
   * @param {(value: number) => number} y
   */
  #placeMarks(points, y) {
    const known = new Map([...this.#marks.querySelectorAll("a")].map((link) => [link.getAttribute("href"), link]));
    const links = this.#lines.flatMap((line, index) =>
      (line.marks ?? []).map((mark, at) => {
        const link = known.get(mark.href) ?? h("a", { class: "mark-link", href: mark.href });
        link.title = mark.label;
        link.ariaLabel = mark.label;
        const value = this.#marksOf(line, points[index] ?? [])[at]?.[1] ?? NaN;
        const place = this.#x(mark.x);
        link.hidden = !(Number.isFinite(value) && place >= MARGIN.left && place <= this.#right);
        link.style.setProperty("translate", `${place - 12}px ${y(value) - 12}px`);
        known.delete(mark.href);
        return link;
      }),
    );
    for (const link of known.values()) link.remove();
    this.#marks.append(...links.filter((link) => !link.isConnected));
  }

  #listen() {
    const drawing = this.#drawing;
    const pixel = (/** @type {PointerEvent} */ event) => event.clientX - drawing.getBoundingClientRect().left;
    const drag = (/** @type {number} */ end) => {
      const [low, high] = [Math.min(this.#start ?? end, end), Math.max(this.#start ?? end, end)];
      return /** @type {Range} */ ([Math.max(low, MARGIN.left), Math.min(high, this.#right)]);
    };
    drawing.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !(event.target instanceof SVGElement)) return;
      this.#start = pixel(event);
      drawing.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    drawing.addEventListener("pointermove", (event) => {
      if (this.#places.length === 0) return;
      if (this.#start === null) {
        this.#slider.value = String(nearest(this.#places.map(this.#x), pixel(event)));
        this.#read();
        return;
      }
      const [low, high] = drag(pixel(event));
      this.#selection.hidden = false;
      this.#selection.style.setProperty("left", `${low}px`);
      this.#selection.style.setProperty("width", `${Math.max(0, high - low)}px`);
    });
    drawing.addEventListener("pointerup", (event) => {
      if (this.#start === null) return;
      const [low, high] = drag(pixel(event));
      this.#start = null;
      this.#selection.hidden = true;
      if (high - low >= MIN_DRAG) this.zoom([this.#valueOf(low), this.#valueOf(high)]);
    });
    drawing.addEventListener("pointercancel", () => {
      this.#start = null;
      this.#selection.hidden = true;
    });
    drawing.addEventListener("dblclick", () => this.zoom(null));
  }

  /** @param {number} pixel */
  #valueOf(pixel) {
    const share = (pixel - MARGIN.left) / (this.#right - MARGIN.left);
    const [low, high] = this.#shown;
    return this.#options.x.isLog ? low * (high / low) ** share : low + share * (high - low);
  }

  /**
   * Zoom around the position that is read.
   * @param {number} factor
   */
  #scaleBy(factor) {
    const { isLog } = this.#options.x;
    const to = isLog ? Math.log10 : Number;
    const [low, high] = this.#shown.map(to);
    const center = to(this.#places[Number(this.#slider.value)] ?? this.#shown[1]);
    const half = (((high ?? 1) - (low ?? 0)) * factor) / 2;
    const middle = factor > 1 ? ((low ?? 0) + (high ?? 1)) / 2 : center;
    this.#zoomTo(middle - half, middle + half);
  }

  /** @param {number} share of what is shown */
  #shiftBy(share) {
    const to = this.#options.x.isLog ? Math.log10 : Number;
    const [low = 0, high = 1] = this.#shown.map(to);
    this.#zoomTo(low + share * (high - low), high + share * (high - low));
  }

  /**
   * Zoom to a range within the numbers of the lines; numbers of a logarithmic axis are exponents.
   * @param {number} low
   * @param {number} high
   */
  #zoomTo(low, high) {
    const { isLog } = this.#options.x;
    const [first, last] = this.#extent();
    const width = high - low;
    const start = Math.max(first, Math.min(low, last - width));
    const end = Math.min(last, start + width);
    const range = /** @type {Range} */ ([start, end].map((value) => (isLog ? 10 ** value : value)));
    this.zoom(end - start >= last - first ? null : range);
  }

  /** Return the ends of the x axis without a zoom. */
  #extent() {
    const { isLog } = this.#options.x;
    const [first, last] = extent(
      this.#lines.flatMap((line) => line.points.map(([place]) => (isLog ? Math.log10(place) : place))),
    );
    return /** @type {Range} */ ([isLog ? first : Math.min(0, first), last]);
  }

  /** Show the numbers at the position of the slider. */
  #read() {
    const place = this.#places[Number(this.#slider.value)];
    this.#cursor.hidden = place === undefined;
    if (place === undefined) return;
    const { x: across, y: up } = this.#options;
    this.#cursor.style.setProperty("translate", `${this.#x(place)}px 0`);
    const numberOf = (/** @type {number} */ value) => (Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(3) : value.toLocaleString("en", { maximumSignificantDigits: 6 }));
    const values = this.#lines.map((line) => {
      const point = valueAt(line.points, place);
      if (!point) return `${line.name} –`;
      return `${line.name} ${up.per ? loss(point[1]) : numberOf(point[1])}${point[0] === place ? "" : ` (at ${numberOf(point[0])})`}`;
    });
    const text = `${named(across)} ${numberOf(place)}: ${values.join(", ")}`;
    this.#slider.setAttribute("aria-label", `Position on the curves of ${up.name}`);
    this.#slider.setAttribute("aria-valuetext", text);
    this.#readout.textContent = text;
  }

  #fillTable() {
    if (!this.#details.open || this.#numbers.contains(document.activeElement)) return;
    const { x: across, y: up } = this.#options;
    const maps = this.#lines.map((line) => new Map(line.points));
    const places = [...new Set(maps.flatMap((map) => [...map.keys()]))].sort((one, two) => one - two);
    const rows = thinned(places, MAX_ROWS).map((place) => [
      place.toLocaleString("en", { maximumFractionDigits: 3 }),
      ...maps.map((map) => () => written(map.get(place), up)),
    ]);
    this.#numbers.replaceChildren(
      table(() => `${capital(named(up))} by ${named(across)}`, [capital(named(across)), ...this.#lines.map(({ name }) => name)], rows),
    );
  }
}

/**
 * Return the last point at or before an x; the points are in order.
 * @param {Points} points
 * @param {number} place
 */
export function valueAt(points, place) {
  return points[after(points, place) - 1];
}

/**
 * Return the points within a range, and one more on each side.
 * @param {Points} points
 * @param {Range | null} range
 */
function within(points, range) {
  if (range === null) return points;
  return points.slice(Math.max(0, after(points, range[0]) - 1), after(points, range[1]) + 1);
}

/**
 * Return how many points have an x of at most `place`.
 * @param {Points} points
 * @param {number} place
 */
function after(points, place) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.[0] ?? Infinity) <= place) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Return the index of the number nearest to another one; the numbers are in order.
 * @param {number[]} numbers
 * @param {number} wanted
 */
function nearest(numbers, wanted) {
  const at = numbers.findIndex((number) => number >= wanted);
  if (at < 1) return at < 0 ? numbers.length - 1 : 0;
  return wanted - (numbers[at - 1] ?? 0) < (numbers[at] ?? 0) - wanted ? at - 1 : at;
}

/**
 * @param {number | undefined} value
 * @param {Axis} axis
 */
function written(value, { per }) {
  if (value === undefined) return "–";
  if (per) return loss(value);
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(3);
  return value.toLocaleString("en", Math.abs(value) < 1000 ? { minimumFractionDigits: 4, maximumFractionDigits: 4 } : { maximumFractionDigits: 0 });
}

/**
 * @param {Axis} axis
 * @param {string} measured bits or nats
 */
function unitOf({ unit: name = "", per }, measured) {
  return per ? `${measured} per ${per}` : name;
}

/** @param {Axis} axis */
function named(axis) {
  const name = unitOf(axis, unit());
  return name ? `${axis.name}, ${name}` : axis.name;
}

/**
 * @param {Line[]} lines
 * @param {Options} options
 */
function describe(lines, { x, y }) {
  const parts = lines.map(({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    return first && last
      ? `${name} from ${written(first[1], y)} at ${first[0]} to ${written(last[1], y)} at ${last[0]}`
      : name;
  });
  return `${named(y)} by ${named(x)}: ${parts.join("; ")}`;
}

/** The axes of a chart of losses. */
export const LOSS = { title: "Loss", x: { name: "step" }, y: /** @type {Axis} */ ({ name: "loss", per: "token" }) };
