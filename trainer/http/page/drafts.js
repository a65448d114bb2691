/** What a person types, kept in this tab until it is sent, so that a reload or a lost connection takes nothing away. */

const PREFIX = "draft:";

/**
 * Keep the content of a field under a name, and put back what was kept.
 * @template {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field
 * @param {Field} field
 * @param {string} name
 */
export function kept(field, name) {
  const key = PREFIX + name;
  field.value = sessionStorage.getItem(key) ?? field.value;
  field.addEventListener("input", () => sessionStorage.setItem(key, field.value));
  return field;
}

/**
 * Forget what was kept under names that start so.
 * @param {string} start
 */
export function forgetDrafts(start = "") {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX + start)) sessionStorage.removeItem(key);
}
