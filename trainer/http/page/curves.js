/** Loss curves as a chart with a table of the same numbers. */

import { h, svg, table } from "./elements.js";
import { decimal } from "./numbers.js";
import { apart, extent, thinned, ticks } from "./scale.js";

/** @import { LossBand, Points } from "./records.js" */
/** @typedef {{name: string, label: string, style: string, points: Points, band?: LossBand}} Line `label` stands at its end */

const HEIGHT = 300;
const MARGIN = { top: 12, right: 76, bottom: 44, left: 52 };
const MAX_ROWS = 200;

/** A chart of lines that can change. */
export class Chart {
  /** @type {Line[]} */
  #lines = [];
  #drawing = h("div", { class: "chart" });
  #numbers = h("div");
  #details = h("details", { ontoggle: () => this.#fillTable() }, h("summary", {}, "Curves as a table"), this.#numbers);

  constructor() {
    this.element = h("div", {}, this.#drawing, this.#details);
    new ResizeObserver(() => this.#draw()).observe(this.#drawing);
  }

  /** @param {Line[]} lines */
  show(lines) {
    this.#lines = lines.filter((line) => line.points.length > 0);
    this.#draw();
    this.#fillTable();
  }

  #draw() {
    const lines = this.#lines;
    const width = Math.max(260, this.#drawing.clientWidth);
    const points = lines.flatMap((line) => [...line.points, ...(line.band?.low ?? []), ...(line.band?.high ?? [])]);
    const [, lastStep] = extent(points.map(([step]) => step));
    const [least, most] = extent(points.map(([, loss]) => loss));
    const [low, high] = [least - (most - least) / 16, most + (most - least) / 16];
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const x = (/** @type {number} */ step) => MARGIN.left + (step / lastStep) * (right - MARGIN.left);
    const y = (/** @type {number} */ loss) => bottom - ((loss - low) / (high - low)) * (bottom - MARGIN.top);
    const path = (/** @type {Points} */ places) =>
      places.map(([step, loss], at) => `${at ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
    const ends = apart(
      lines.map((line) => y(line.points.at(-1)?.[1] ?? low)),
      14,
    );
    const image = svg(
      "svg",
      { role: "img", "aria-label": describe(lines), viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
      ...ticks(low, high, 5).flatMap((loss) => [
        svg("path", { class: "grid", d: `M${MARGIN.left} ${y(loss)}H${right}` }),
        svg("text", { x: MARGIN.left - 6, y: y(loss) + 4, "text-anchor": "end" }, loss),
      ]),
      ...ticks(0, lastStep, width / 110).map((step) =>
        svg("text", { x: x(step), y: bottom + 18, "text-anchor": "middle" }, step.toLocaleString("en")),
      ),
      svg("path", { class: "axis", d: `M${MARGIN.left} ${MARGIN.top}V${bottom}H${right}` }),
      svg("text", { x: (MARGIN.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "step"),
      svg(
        "text",
        { transform: `translate(12 ${(MARGIN.top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        "loss (nats per token)",
      ),
      ...lines.map((line) =>
        line.band ? svg("path", { class: `band ${line.style}`, d: `${path(outline(line.band))}Z` }) : null,
      ),
      ...lines.flatMap((line, index) => [
        svg("path", {
          class: `line ${line.style}`,
          d: path(line.points),
        }),
        line.points.length === 1
          ? svg("circle", { class: `line ${line.style}`, cx: x(line.points[0]?.[0] ?? 0), cy: ends[index] ?? 0, r: 3 })
          : null,
        svg("text", { class: `end ${line.style}`, x: right + 6, y: (ends[index] ?? 0) + 4 }, line.label),
      ]),
    );
    this.#drawing.replaceChildren(lines.length ? image : h("p", {}, "There are no losses yet."));
  }

  #fillTable() {
    if (!this.#details.open || this.#numbers.contains(document.activeElement)) return;
    const maps = this.#lines.map((line) => new Map(line.points));
    const steps = [...new Set(maps.flatMap((map) => [...map.keys()]))].sort((one, two) => one - two);
    const rows = thinned(steps, MAX_ROWS).map((step) => [
      step,
      ...maps.map((map) => decimal(map.get(step) ?? null, 4)),
    ]);
    this.#numbers.replaceChildren(
      table("Loss in nats per token by step", ["Step", ...this.#lines.map(({ name }) => name)], rows),
    );
  }
}

/**
 * Return the lines of one run.
 * @param {{train: Points, validation: Points}} curve
 * @returns {Line[]}
 */
export function linesOf(curve) {
  return [
    { name: "train", label: "train", style: "run0", points: curve.train },
    { name: "validation", label: "validation", style: "run1 dashed", points: curve.validation },
  ];
}

/**
 * Return the lines of a group, with bands from the lowest to the highest loss.
 * @param {{train: LossBand, validation: LossBand}} curve
 * @returns {Line[]}
 */
export function linesOfGroup({ train, validation }) {
  return [
    { name: "train, mean", label: "train", style: "run0", points: train.mean, band: train },
    { name: "validation, mean", label: "validation", style: "run1 dashed", points: validation.mean, band: validation },
  ];
}

/**
 * Return the points around a band.
 * @param {LossBand} band
 * @returns {Points}
 */
function outline({ low, high }) {
  return [...low, ...[...high].reverse()];
}

/** @param {Line[]} lines */
function describe(lines) {
  const parts = lines.map(({ name, points }) => {
    const [first, last] = [points[0], points.at(-1)];
    return first && last
      ? `${name} from ${decimal(first[1])} at step ${first[0]} to ${decimal(last[1])} at step ${last[0]}`
      : name;
  });
  return `Loss in nats per token: ${parts.join("; ")}`;
}
