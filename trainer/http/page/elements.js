/** Elements made from a tag, attributes and children; text of the server only becomes text nodes and attribute values. */

import { onUnitChange } from "./units.js";

/** @typedef {string | (() => string)} LiveText a function is called again when the unit of surprisals changes */
/** @typedef {Node | LiveText | number | null} Child */
/** @typedef {Record<string, string | number | boolean | ((event: Event) => void)>} Attributes */

/**
 * Make an HTML element; an attribute that is a function is a listener (`onclick`) or a `LiveText`, and false leaves it out.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * Make an SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * Make a table that scrolls within itself.
 * @param {LiveText} caption
 * @param {LiveText[]} head an empty name is no header
 * @param {Child[][]} rows the first cell of each row is its header
 */
export function table(caption, head, rows) {
  return scrolling(
    caption,
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, ...head.map((name) => (name ? h("th", { scope: "col" }, name) : h("td"))))),
      h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells.map(cell)))),
    ),
  );
}

/**
 * Make a part that the keyboard can scroll.
 * @param {LiveText} label
 * @param {Node} content
 */
export function scrolling(label, content) {
  return h("div", { class: "scroll", role: "group", tabindex: 0, "aria-label": label }, content);
}

/**
 * Put a label to a control; both stay together where a bar is broken into lines.
 * @param {string} title
 * @param {HTMLElement} control
 */
export function labelled(title, control) {
  return h("div", { class: "labelled" }, h("label", { for: control.id }, title), control);
}

/**
 * Make a part of the page with a heading.
 * @param {string} title
 * @param {Child[]} children
 */
export function section(title, ...children) {
  const id = `about-${title.toLowerCase().replaceAll(" ", "-")}`;
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

/**
 * Make a part of the page equal to a new one; what is equal already stays in its place, with the focus.
 * @param {ChildNode} old
 * @param {ChildNode} made
 */
export function renew(old, made) {
  if (old.isEqualNode(made)) return;
  const [stays, comes] = [[...old.childNodes], [...made.childNodes]];
  const isAlike = stays.length > 0 && stays.length === comes.length && old.cloneNode().isEqualNode(made.cloneNode());
  if (!isAlike) return old.replaceWith(made);
  comes.forEach((child, index) => stays[index] && renew(stays[index], child));
}

/**
 * Make a text that changes with the unit of surprisals.
 * @param {() => string} text
 */
export function live(text) {
  const node = document.createTextNode(text());
  onUnitChange(node, () => (node.data = text()));
  return node;
}

/**
 * Make a text in whatever direction its letters have.
 * @param {LiveText} text
 */
export function bdi(text) {
  return h("bdi", {}, text);
}

/**
 * Make a text whose words between backticks are code.
 * @param {() => string} text
 */
export function withCode(text) {
  const parts = text().split("`").map((_, at) => {
    const part = () => text().split("`")[at] ?? "";
    return at % 2 ? h("code", {}, part) : part;
  });
  return h("bdi", {}, ...parts);
}

/**
 * Show the message of an error.
 * @param {unknown} error
 */
export function failure(error) {
  return h("p", { class: "error", role: "alert" }, withCode(() => (error instanceof Error ? error.message : String(error))));
}

/**
 * Give the view a title.
 * @param {string} title
 */
export function setTitle(title) {
  const heading = document.querySelector("h1");
  if (heading) heading.textContent = title;
  document.title = `${title} · Model Trainer`;
}

/**
 * Let screen readers say a message.
 * @param {string} message
 */
export function announce(message) {
  const news = document.getElementById("news");
  if (news) news.textContent = message;
}

/**
 * @param {Child} content
 * @param {number} column
 */
function cell(content, column) {
  return column ? h("td", {}, content) : h("th", { scope: "row" }, content);
}

/** @param {Node | LiveText | number} child */
function nodeOf(child) {
  if (typeof child === "function") return live(child);
  return child instanceof Node ? child : String(child);
}

/**
 * @template {Element} Made
 * @param {Made} element
 * @param {Attributes} attributes
 * @param {Child[]} children
 */
function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function" && name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "function") {
      const set = () => element.setAttribute(name, /** @type {() => string} */ (value)());
      onUnitChange(element, set);
      set();
    } else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null).map(nodeOf));
  return element;
}

/** @import { UnreadableJob } from "./records.js" */

/**
 * Return the list of the jobs that the server cannot read, each with the reason; hidden if there is none.
 * @param {readonly UnreadableJob[]} jobs
 */
export function unreadableList(jobs) {
  const items = jobs.map(({ job_id: id, reason }) => h("li", {}, h("code", {}, id), ` cannot be read: ${reason}`));
  return h("ul", { class: "quiet", hidden: jobs.length === 0 }, ...items);
}
