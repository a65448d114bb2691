/** Pictures of reports, as they are in the folder of a job. */

import { call } from "./api.js";
import { failure, h } from "./elements.js";
import { download, fileAddress } from "./files.js";

/** @import { FileRecord } from "./records.js" */

/**
 * Return what makes a picture of a report with links to its files: the PNG, and others of its name; null where there is none.
 * @param {string} artifact
 * @param {FileRecord[]} files
 * @param {string} name without suffix
 * @param {string} text what it shows
 * @param {AbortSignal} signal
 */
export function picture(artifact, files, name, text, signal) {
  const paths = files.map(({ path }) => path).filter((path) => path.startsWith(`${name}.`));
  const path = `${name}.png`;
  if (!paths.includes(path)) return null;
  return () => {
    const image = h("img", { alt: text });
    const links = paths.flatMap((one) => [" ", download(artifact, one)]);
    dataAddress(fileAddress(artifact, path), signal).then(
      (address) => (image.src = address),
      (error) => signal.aborted || image.replaceWith(failure(error)),
    );
    return h("figure", { class: "picture" }, image, h("figcaption", {}, text, ...links));
  };
}

/**
 * Return the content of a PNG as an address: an address of its own cannot carry an API key.
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<string>}
 */
async function dataAddress(path, signal) {
  const content = await (await call(path, { signal })).blob();
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(new Blob([content], { type: "image/png" }));
  });
}
