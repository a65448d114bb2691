/** The tables of the server that the views use. */

/** @import { PageTables } from "./records.js" */

/**
 * The server writes its tables in place of `null` when it serves this module.
 * @type {PageTables}
 */
export const TABLES = JSON.parse("null");

/**
 * Return the list that has, or would have, what an address names.
 * @param {string} address
 */
export function listOf(address) {
  const kind = /^#\/(\w+)/.exec(address)?.[1];
  if (kind === "corpora") return { href: "#/corpora", title: "Corpora" };
  const job = TABLES.jobs.find((row) => row.kind === kind);
  return job ? { href: `#/${job.kind}`, title: job.title } : { href: "#/", title: "Runs" };
}

/**
 * Write values in place of the names in braces of a sentence.
 * @param {string} sentence
 * @param {Record<string, string>} values
 */
export function filled(sentence, values) {
  return sentence.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/**
 * Write a count with its noun, in the plural unless it is one.
 * @param {number} count
 * @param {string} noun
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
