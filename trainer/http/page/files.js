/** Files of artifacts: their table, and links that download them. */

import { call, hasKey } from "./api.js";
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
    { href: address, download: name, onclick: (event) => hasKey() && (event.preventDefault(), save()) },
    bdi(path),
  );
  const save = async () => {
    try {
      const url = URL.createObjectURL(await (await call(address)).blob());
      h("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      link.after(failure(error));
    }
  };
  return link;
}
