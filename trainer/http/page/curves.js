/** A chart of lines that can change: it is read at a cursor, zoomed and downloaded, and has a table of its numbers. */

import { chartTools, csvOf } from "./chart_files.js";
import { h, svg, table } from "./elements.js";
import { capital, decimal, loss, withMinus } from "./numbers.js";
import { apart, between, extent, firstFrom, fitted, logTicks, thinned, ticks, tickText } from "./scale.js";
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
 * `empty` stands where there are no lines, `least` is the least height in pixels; `onzoom` gets the range of x that is
 * shown, null for all of it.
 * @typedef {{title: string, x: Axis, y: Axis, empty?: string, least?: number, onzoom?: (range: Range | null) => void}} Options
 */

const LABEL = 14;
const MARGIN = { top: 12, right: 76, bottom: 44, left: 60 };
/** Pixels of a character of a label, and the largest share of the width that labels take. */
const CHARACTER = 7.2;
const MAX_LABELS = 0.4;
/** Pixels around the plot for what stands at its edges. */
const EDGE = 8;
const MAX_ROWS = 200;
/** Lines that the cursor tells of: those nearest to it. */
const MAX_READ = 12;
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
  /** @type {Range} what is shown, and all that could be, in the numbers of the axis: exponents of a logarithmic one */
  #shown = [0, 1];
  /** @type {Range} */
  #full = [0, 1];
  /** @type {(x: number) => number} pixels of a value */
  #x = () => 0;
  /** @type {(y: number) => number} */
  #y = () => 0;
  #right = 0;
  /** @type {number | null} where the pointer went down */
  #start = null;
  #image = h("div");
  #cursor = h("div", { class: "cursor", hidden: true });
  #tip = h("div", { class: "readout", hidden: true });
  #selection = h("div", { class: "selection", hidden: true });
  #marks = h("div");
  #drawing = h("div", { class: "chart" }, this.#image, this.#cursor, this.#selection, this.#marks, this.#tip);
  #slider = h("input", {
    type: "range",
    min: 0,
    value: 0,
    oninput: () => this.#read(),
    onfocus: () => this.#read(),
    onblur: () => this.#hide(),
  });
  #numbers = h("div");
  #details;

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    const button = (/** @type {string} */ name, /** @type {() => void} */ act) =>
      h("button", { type: "button", onclick: act, "aria-label": `${name}: ${options.title}` }, name);
    const tools = h(
      "div",
      { class: "bar tools" },
      button("Zoom in", () => this.#scaleBy(0.5)),
      button("Zoom out", () => this.#scaleBy(2)),
      button("Reset zoom", () => this.zoom(null)),
      ...chartTools(options.title, () => ({
        title: this.#options.title,
        image: this.#image.querySelector("svg"),
        csv: () => csvOf(named(this.#options.x), this.#lines, unitOf(this.#options.y, "nats")),
      })),
    );
    this.#details = h("details", { ontoggle: () => this.#fillTable() }, h("summary", {}, "Zoom, files and table"), tools, this.#numbers);
    this.element = h("div", {}, this.#drawing, this.#slider, this.#details);
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
    const { title, x: across, y: up, empty, least = 300 } = this.#options;
    const lines = this.#lines;
    const width = Math.max(260, this.#drawing.clientWidth);
    const nLabels = lines.filter((line) => line.label).length;
    const height = Math.max(least, nLabels * LABEL + MARGIN.top + MARGIN.bottom);
    const bottom = height - MARGIN.bottom;
    const longest = Math.max(...lines.map(({ label }) => label.length)) * CHARACTER + MARGIN.top;
    const room = Math.min(Math.max(MARGIN.right, longest), Math.max(MARGIN.right, width * MAX_LABELS));
    const right = (this.#right = width - (nLabels ? room : MARGIN.top));
    const [ofX, ofY] = [scaleOf(across), scaleOf(up)];
    const isPoint = (/** @type {[number, number]} */ [one, two]) => Number.isFinite(ofX.to(one)) && Number.isFinite(ofY.to(two));
    const pointsOf = (/** @type {Points} */ points) =>
      (up.per ? points.map(([place, nats]) => /** @type {[number, number]} */ ([place, inUnit(nats)])) : points).filter(isPoint);
    const sets = lines.map(({ points, raw = [], band }) => ({
      points: pointsOf(points),
      raw: pointsOf(raw),
      low: pointsOf(band?.low ?? []),
      high: pointsOf(band?.high ?? []),
    }));
    const all = sets.flatMap(({ points, raw, low, high }) => [points, raw, low, high]);
    const [first, last] = extent(all.flatMap((points) => points.map(([place]) => ofX.to(place))));
    this.#full = [across.isLog ? first : Math.min(0, first), last];
    const [from, to] = (this.#shown = this.#zoom ? [ofX.to(this.#zoom[0]), ofX.to(this.#zoom[1])] : this.#full);
    const seen = all.map((points) => within(points, this.#zoom));
    const [lowest, highest] = extent(seen.flatMap((points) => points.map(([, value]) => ofY.to(value))));
    const [low, high] = [lowest - (highest - lowest) / 16, highest + (highest - lowest) / 16];
    const marksOf = (/** @type {Axis} */ axis, /** @type {Range} */ range, /** @type {number} */ count) =>
      (axis.isLog ? logTicks : ticks)(scaleOf(axis).back(range[0]), scaleOf(axis).back(range[1]), count);
    const x = (this.#x = (place) => MARGIN.left + ((ofX.to(place) - from) / (to - from)) * (right - MARGIN.left));
    const y = (this.#y = (value) => bottom - ((ofY.to(value) - low) / (high - low)) * (bottom - MARGIN.top));
    const path = (/** @type {Points} */ points) =>
      points.map(([place, value], at) => `${at ? "L" : "M"}${x(place).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const seenOf = (/** @type {number} */ index, /** @type {number} */ part) => seen[index * 4 + part] ?? [];
    const ends = apart(
      lines.map((_, index) => Math.max(MARGIN.top, Math.min(bottom, y(seenOf(index, 0).at(-1)?.[1] ?? ofY.back(low))))),
      LABEL,
      bottom,
    );
    const shapes = lines.flatMap((line, index) => {
      const band = [...seenOf(index, 2), ...[...seenOf(index, 3)].reverse()];
      return [
        band.length ? svg("path", { class: `band ${line.style}`, d: `${path(band)}Z` }) : null,
        seenOf(index, 2).length === 1 ? svg("path", { class: `line ${line.style}`, d: intervalOf(seenOf(index, 2), seenOf(index, 3), x, y) }) : null,
        line.raw ? svg("path", { class: `raw ${line.style}`, d: path(seenOf(index, 1)) }) : null,
      ];
    });
    const curves = lines.flatMap((line, index) => {
      const points = seenOf(index, 0);
      const [only] = points;
      return [
        svg("path", { class: `line ${line.style}`, d: path(points) }),
        only && points.length === 1 ? svg("circle", { class: `line ${line.style}`, cx: x(only[0]), cy: y(only[1]), r: 3 }) : null,
        ...placesOf(line, sets[index]?.points ?? [])
          .filter((mark) => isPoint(mark))
          .map(([place, value]) => svg("circle", { class: `mark ${line.style}`, cx: x(place), cy: y(value), r: 5 })),
      ];
    });
    const plot = right - MARGIN.left;
    const edge = this.#zoom ? 0 : EDGE; // all points are in view, and those at the edges are whole
    const image = svg(
      "svg",
      { role: "img", "aria-label": `${title}: ${describe(lines, this.#options)}`, viewBox: `0 0 ${width} ${height}`, width, height },
      ...marksOf(up, [low, high], 5).flatMap((value) => [
        svg("path", { class: "grid", d: `M${MARGIN.left} ${y(value)}H${right}` }),
        svg("text", { x: MARGIN.left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value)),
      ]),
      ...marksOf(across, [from, to], width / 110).map((place) =>
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
        { x: MARGIN.left - edge, width: plot + 2 * edge, height: bottom, viewBox: `${MARGIN.left - edge} 0 ${plot + 2 * edge} ${bottom}` },
        ...shapes,
        ...curves,
      ),
      ...lines.map((line, index) =>
        svg("text", { class: `end ${line.style}`, x: right + 6, y: (ends[index] ?? 0) + 4 }, fitted(line.label, Math.floor((room - MARGIN.top) / CHARACTER))),
      ),
    );
    this.#image.replaceChildren(lines.length ? image : h("p", {}, empty ?? "There are no numbers yet."));
    this.#placeMarks(sets.map(({ points }) => points));
    this.#slider.hidden = this.#details.hidden = lines.length === 0;
    this.#drawing.style.setProperty("--top", `${MARGIN.top}px`);
    this.#drawing.style.setProperty("--bottom", `${MARGIN.bottom}px`);
    this.#slider.style.setProperty("margin-inline-start", `${MARGIN.left - 8}px`);
    this.#slider.style.setProperty("width", `${plot + 16}px`);
    this.#slider.setAttribute("aria-label", `Position on the curves of ${up.name}`);
    const places = new Set(lines.flatMap((line) => line.points.map(([place]) => place)));
    const isInView = (/** @type {number} */ place) => x(place) >= MARGIN.left - 0.5 && x(place) <= right + 0.5;
    this.#places = [...places].filter(isInView).sort((one, two) => one - two);
    const isAtEnd = !this.#slider.max || this.#slider.value === this.#slider.max;
    this.#slider.max = String(Math.max(0, this.#places.length - 1));
    if (isAtEnd) this.#slider.value = this.#slider.max;
    if (this.#places.length === 0) this.#hide();
    else this.#say();
    if (!this.#tip.hidden) this.#read();
  }

  /**
   * Put the links of the marks over the image: their elements stay, so that they keep the focus.
   * @param {Points[]} points of each line
   */
  #placeMarks(points) {
    const known = new Map([...this.#marks.querySelectorAll("a")].map((link) => [link.getAttribute("href"), link]));
    const links = this.#lines.flatMap((line, index) => {
      const places = placesOf(line, points[index] ?? []);
      return (line.marks ?? []).map((mark, at) => {
        const link = known.get(mark.href) ?? h("a", { class: "mark-link", href: mark.href });
        link.title = mark.label;
        link.ariaLabel = mark.label;
        const [left, top] = [this.#x(mark.x), this.#y(places[at]?.[1] ?? NaN)];
        link.hidden = !(Number.isFinite(top) && left >= MARGIN.left && left <= this.#right);
        link.style.setProperty("translate", `${left - 12}px ${top - 12}px`);
        known.delete(mark.href);
        return link;
      });
    });
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
    const stop = () => {
      this.#start = null;
      this.#selection.hidden = true;
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
        return this.#read(event.clientY - drawing.getBoundingClientRect().top);
      }
      const [low, high] = drag(pixel(event));
      this.#selection.hidden = false;
      this.#selection.style.setProperty("left", `${low}px`);
      this.#selection.style.setProperty("width", `${Math.max(0, high - low)}px`);
    });
    drawing.addEventListener("pointerup", (event) => {
      if (this.#start === null) return;
      const [low, high] = drag(pixel(event));
      stop();
      if (high - low >= MIN_DRAG) this.#zoomTo(this.#valueOf(low), this.#valueOf(high));
    });
    drawing.addEventListener("pointercancel", stop);
    drawing.addEventListener("pointerleave", () => this.#hide());
    drawing.addEventListener("dblclick", () => this.zoom(null));
  }

  /**
   * Return the number of the axis at a pixel.
   * @param {number} pixel
   */
  #valueOf(pixel) {
    const [low, high] = this.#shown;
    return low + ((pixel - MARGIN.left) / (this.#right - MARGIN.left)) * (high - low);
  }

  /**
   * Zoom in around the position that is read, or out.
   * @param {number} factor
   */
  #scaleBy(factor) {
    const [low, high] = this.#shown;
    const place = this.#places[Number(this.#slider.value)];
    const middle = factor > 1 || place === undefined ? (low + high) / 2 : scaleOf(this.#options.x).to(place);
    const half = ((high - low) * factor) / 2;
    this.#zoomTo(middle - half, middle + half);
  }

  /**
   * Zoom to a range of the axis, within the numbers of the lines.
   * @param {number} low
   * @param {number} high
   */
  #zoomTo(low, high) {
    const [first, last] = this.#full;
    const start = Math.max(first, Math.min(low, last - (high - low)));
    const end = Math.min(last, start + high - low);
    const { back } = scaleOf(this.#options.x);
    this.zoom(end - start >= last - first ? null : [back(start), back(end)]);
  }

  #hide() {
    this.#cursor.hidden = this.#tip.hidden = true;
  }

  /**
   * Show the numbers at the position of the slider: those of the lines nearest to a height, or of the lowest ones.
   * @param {number} [height]
   */
  #read(height) {
    const found = this.#say();
    if (!found) return;
    const left = this.#x(found.place);
    this.#cursor.hidden = this.#tip.hidden = false;
    this.#cursor.style.setProperty("translate", `${left}px 0`);
    const distance = (/** @type {number} */ value) => {
      const top = this.#y(this.#options.y.per ? inUnit(value) : value);
      return height === undefined ? -top : Math.abs(top - height);
    };
    const rows = found.values
      .filter((one) => one.value !== undefined)
      .sort((one, two) => distance(one.value ?? 0) - distance(two.value ?? 0))
      .slice(0, MAX_READ)
      .sort((one, two) => (two.value ?? 0) - (one.value ?? 0))
      .map(({ line, text }) => h("div", {}, h("i", { class: `swatch ${line.style}` }), ` ${text}`));
    this.#tip.replaceChildren(h("b", {}, found.title), ...rows);
    const isLeft = left > this.#drawing.clientWidth / 2;
    this.#tip.style.setProperty("translate", isLeft ? `calc(${left - 12}px - 100%) 0` : `${left + 12}px 0`);
  }

  /** Say the numbers at the position of the slider, and return them. */
  #say() {
    const place = this.#places[Number(this.#slider.value)];
    if (place === undefined) return null;
    const { x: across, y: up } = this.#options;
    const numberOf = (/** @type {number} */ value) =>
      withMinus(Math.abs(value) < 1e-3 && value !== 0 ? value.toExponential(3) : value.toLocaleString("en", { maximumSignificantDigits: 6 }));
    const values = this.#lines.map((line) => {
      const point = valueAt(line.points, place);
      const at = !point || point[0] === place ? "" : ` (at ${numberOf(point[0])})`;
      const text = point ? `${up.per ? loss(point[1]) : numberOf(point[1])}${at}` : "–";
      return { line, value: point?.[1], text: `${line.name} ${text}` };
    });
    const title = `${named(across)} ${numberOf(place)}`;
    this.#slider.setAttribute("aria-valuetext", `${title}: ${values.map(({ text }) => text).join(", ")}`);
    return { place, title, values };
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
 * Return the path of the interval of a point, from its low to its high end with a stroke at each.
 * @param {Points} low
 * @param {Points} high
 * @param {(place: number) => number} x
 * @param {(value: number) => number} y
 */
export function intervalOf([low], [high], x, y) {
  if (!low || !high) return "";
  const [place, bottom, top] = [x(low[0]), y(low[1]), y(high[1])].map((pixels) => Number(pixels.toFixed(1)));
  return [bottom, top].map((height) => `M${Number(place) - 4} ${height}h8`).join("") + `M${place} ${bottom}V${top}`;
}

/**
 * Return the numbers of an axis for values, and back.
 * @param {Axis} axis
 * @returns {{to: (value: number) => number, back: (number: number) => number}}
 */
function scaleOf({ isLog }) {
  return isLog ? { to: Math.log10, back: (number) => 10 ** number } : { to: Number, back: Number };
}

/**
 * Return the places of a line's marks: on the line between its points, and outside of them at the nearest point.
 * @param {Line} line
 * @param {Points} points
 * @returns {Points}
 */
function placesOf({ marks = [] }, points) {
  return marks.map(({ x }) => [x, between(points, x, 0)]);
}

/**
 * Return the last point at or before an x; the points are in order.
 * @param {Points} points
 * @param {number} place
 */
function valueAt(points, place) {
  const at = firstFrom(points, place, 0);
  return points[at]?.[0] === place ? points[at] : points[at - 1];
}

/**
 * Return the points within a range, and one more on each side.
 * @param {Points} points
 * @param {Range | null} range
 */
function within(points, range) {
  return range ? points.slice(Math.max(0, firstFrom(points, range[0], 0) - 1), firstFrom(points, range[1], 0) + 1) : points;
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
  if (value !== 0 && Math.abs(value) < 1e-3) return withMinus(value.toExponential(3));
  return decimal(value, Math.abs(value) < 1000 ? 4 : 0);
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
