/** Charts as files: SVG with its colours, PNG, and CSV with full numbers. */

import { announce, h } from "./elements.js";
import { csvText, saveFile } from "./files.js";

/** @import { Line } from "./curves.js" */
/** @import { Points } from "./records.js" */

/** Pixels of the PNG for each pixel of the page. */
const DENSITY = 2;
const COPIED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "paint-order", "font-size", "font-weight", "font-family", "text-anchor"];

/**
 * Return the numbers of lines as CSV: a row for each x, an empty field where a line has no number.
 * @param {string} xName
 * @param {Line[]} lines
 * @param {string} unit of the numbers
 */
export function csvOf(xName, lines, unit) {
  const columns = lines.flatMap((line) => {
    /** @type {[string, Points | undefined][]} */
    const sets = [
      [line.name, line.points],
      [`${line.name}, not smoothed`, line.raw],
      [`${line.name}, lowest`, line.band?.low],
      [`${line.name}, highest`, line.band?.high],
    ];
    return sets.flatMap(([name, points]) => (points ? [{ name, values: new Map(points) }] : []));
  });
  const places = [...new Set(columns.flatMap(({ values }) => [...values.keys()]))].sort((one, two) => one - two);
  const rows = places.map((place) => [place, ...columns.map(({ values }) => values.get(place) ?? null)]);
  return csvText([[xName, ...columns.map(({ name }) => (unit ? `${name} (${unit})` : name))], ...rows]);
}

/**
 * Return an image of the page as an SVG document that needs no style sheet.
 * @param {SVGSVGElement} image
 */
function svgOf(image) {
  const copy = /** @type {SVGSVGElement} */ (image.cloneNode(true));
  const copies = copy.querySelectorAll("*");
  image.querySelectorAll("*").forEach((element, index) => {
    const style = getComputedStyle(element);
    for (const name of COPIED) copies[index]?.setAttribute(name, style.getPropertyValue(name));
    copies[index]?.removeAttribute("class");
  });
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  paper.setAttribute("width", "100%");
  paper.setAttribute("height", "100%");
  paper.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(paper);
  return new XMLSerializer().serializeToString(copy);
}

/**
 * Make the buttons that save a chart.
 * @param {string} title
 * @param {() => {title: string, image: SVGSVGElement | null, csv: () => string}} shown what the chart shows
 */
export function chartTools(title, shown) {
  /** @param {"svg" | "png" | "csv"} ending */
  const save = (ending) => {
    const { title, image, csv } = shown();
    const name = `${title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")}.${ending}`;
    if (ending === "csv") saveChart(name, new Blob([csv()], { type: "text/csv" }));
    else if (image && ending === "svg") saveChart(name, new Blob([svgOf(image)], { type: "image/svg+xml" }));
    else if (image) savePng(name, image);
  };
  return /** @type {const} */ (["svg", "png", "csv"]).map((ending) => {
    const text = ending.toUpperCase();
    return h("button", { type: "button", onclick: () => save(ending), "aria-label": `${text}: ${title}` }, text);
  });
}

/**
 * Save an image as PNG, drawn from its SVG.
 * @param {string} name
 * @param {SVGSVGElement} image
 */
async function savePng(name, image) {
  const picture = new Image();
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(image))}`;
  await picture.decode();
  const canvas = h("canvas", { width: image.clientWidth * DENSITY, height: image.clientHeight * DENSITY });
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => blob && saveChart(name, blob), "image/png");
}

/**
 * @param {string} name
 * @param {Blob} blob
 */
function saveChart(name, blob) {
  saveFile(name, blob);
  announce(`Saved ${name}`);
}
