/** Files: those of artifacts, with their table and links that download them, and those that the page makes itself. */

import { call, hasKey } from "./api.js";
import { addressOf } from "./connection.js";
import { bdi, failure, h, table } from "./elements.js";
import { size } from "./numbers.js";

/** @import { FileRecord } from "./records.js" */

/**
 * Return the address of a file.
 * @param {string} artifact such as `models/RUN`
 * @param {string} path
 */
export function fileAddress(artifact, path) {
  return `/artifacts/${artifact}/download?path=${encodeURIComponent(path)}`;
}

/**
 * Make the table of an artifact's files.
 * @param {string} artifact
 * @param {FileRecord[]} files
 */
export function fileTable(artifact, files) {
  const rows = files.map((file) => [download(artifact, file.path), size(file.bytes), h("code", {}, file.sha256)]);
  const made = table("Files with their sizes and hashes", ["File", "Size", "SHA-256"], rows);
  made.classList.add("files");
  return made;
}

/**
 * Make a link to a file; with an API key, which a link cannot send, the page downloads the file itself.
 * @param {string} artifact
 * @param {string} path
 */
export function download(artifact, path) {
  const address = fileAddress(artifact, path);
  const name = path.replaceAll("/", "-");
  const link = h(
    "a",
    { href: addressOf(address), download: name, onclick: (event) => hasKey() && (event.preventDefault(), save()) },
    bdi(path),
  );
  const save = async () => {
    try {
      saveFile(name, await (await call(address)).blob());
    } catch (error) {
      link.after(failure(error));
    }
  };
  return link;
}

/**
 * Save what the page has as a file.
 * @param {string} name
 * @param {Blob} blob
 */
export function saveFile(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Return rows as CSV (RFC 4180); an unknown value is an empty cell.
 * @param {(string | number | null)[][]} rows
 */
export function csvText(rows) {
  return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
}

/** @param {string | number | null} value */
function quoted(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
