// Buttons that copy text.

import { act } from "./actions.js";
import { find } from "./dom.js";
import { announce, notice } from "./notices.js";
import { say } from "./words.js";

/**
 * For pages without access to the clipboard: not https, or not permitted.
 *
 * @param {string} text
 */
const copyOldWay = (text) => {
  let copied = false;
  /** @param {ClipboardEvent} event */
  const give = (event) => {
    event.clipboardData?.setData("text/plain", text);
    event.preventDefault();
    copied = true;
  };
  document.addEventListener("copy", give);
  document.execCommand("copy");
  document.removeEventListener("copy", give);
  return copied;
};

/** @type {WeakMap<HTMLElement, string | null>} */
const labels = new WeakMap();

/**
 * Copies `text`; the button says so for a moment.
 *
 * @param {HTMLElement} button
 * @param {string} text
 */
export const copy = async (button, text) => {
  const written = navigator.clipboard?.writeText(text) ?? Promise.reject();
  const copied = await written.then(() => true, () => copyOldWay(text));
  if (!copied) return notice("error", say("copy_failed"));
  if (!labels.has(button)) labels.set(button, button.textContent); // a second press must not store "Copied"
  button.textContent = say("copied");
  announce(say("copied"));
  setTimeout(() => {
    button.textContent = labels.get(button) ?? "";
  }, 1500);
};

act({
  "copy-answer": (button) => copy(button, button.dataset.source ?? ""),
  "copy-code": (button) => {
    const code = find("pre", /** @type {HTMLElement} */ (button.closest(".code")));
    return copy(button, (code.textContent ?? "").replace(/\n$/, ""));
  },
});
