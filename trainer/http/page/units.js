/** The unit of losses and surprisals: the server sends most of them in nats, and a person chooses what the page shows. */

/** @typedef {"bits" | "nats"} SurprisalUnit */

const KEY = "unit";
/** Nats of one unit. */
const SIZES = { bits: Math.LN2, nats: 1 };

/** @type {SurprisalUnit} */
let chosen = "bits";
/** @type {WeakMap<Node, (() => void)[]>} */
const actions = new WeakMap();

export function unit() {
  return chosen;
}

/** @param {number} nats */
export function inUnit(nats) {
  return nats / SIZES[chosen];
}

/** @param {number} bits */
export function natsOf(bits) {
  return bits * Math.LN2;
}

/**
 * Do something with a node at each change of the unit, while the node is part of the page.
 * @param {Node} node
 * @param {() => void} action
 */
export function onUnitChange(node, action) {
  actions.set(node, [...(actions.get(node) ?? []), action]);
}

/** @param {SurprisalUnit} name */
export function setUnit(name) {
  chosen = name;
}

/**
 * Let a field choose the unit, which this browser keeps; what the page shows changes in its place.
 * @param {HTMLSelectElement} field
 */
export function chooseUnitWith(field) {
  setUnit(localStorage.getItem(KEY) === "nats" ? "nats" : "bits");
  field.value = chosen;
  field.addEventListener("change", () => {
    setUnit(field.value === "nats" ? "nats" : "bits");
    localStorage.setItem(KEY, chosen);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) if (actions.has(walker.currentNode)) found.push(walker.currentNode);
    for (const node of found) if (node.isConnected) for (const action of actions.get(node) ?? []) action();
  });
}
