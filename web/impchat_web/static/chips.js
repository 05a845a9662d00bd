// The pictures of the draft, as chips above the question, and the line that says how far they are read.

import { all, element, find, seek } from "./dom.js";
import { say } from "./words.js";

export const chips = () => all("#chips .chip");

/** @param {string} text */
export const status = (text) => {
  let line = seek("#chips .status");
  if (!text) return line?.remove();
  if (!line) {
    line = element("span", { class: "status", role: "status" });
    find("#chips").append(line);
  }
  if (line.textContent !== text) line.textContent = text;
};

/**
 * @param {string} source the address to show
 * @param {string} [image] its hash, once the server has the picture
 */
export const chip = (source, image = "") => {
  const made = element(
    "span",
    { class: "chip" },
    element("button", { type: "button", class: "retouch", "data-do": "retouch", title: say("pics_edit") }, element("img", { src: source, alt: say("picture") })),
    element("button", { type: "button", class: "tool close", "data-do": "detach", "aria-label": say("detach"), title: say("detach") }),
  );
  made.dataset.image = image;
  place(made);
  return made;
};

/** @param {HTMLElement} made */
export const place = (made) => find("#chips").insertBefore(made, seek("#chips .status"));

/** @type {WeakMap<HTMLElement, string[]>} questions that fit the picture of a chip */
export const fitting = new WeakMap();

/** The questions of the empty page, and those that fit the latest picture. */
export const suggest = () => {
  for (const button of all(".asks .fits")) button.remove();
  const latest = chips().at(-1);
  for (const ask of (latest && fitting.get(latest)) ?? [])
    seek(".asks")?.append(element("button", { type: "button", class: "ask fits", "data-do": "ask" }, ask));
};

/** @param {HTMLElement} made */
export const dropChip = (made) => {
  made.remove();
  suggest();
  if (!chips().length) status("");
};

export const clearChips = () => find("#chips").replaceChildren();

/** @param {string[]} images hashes */
export const drawChips = (images) => {
  if (chips().map(({ dataset }) => dataset.image).join() === images.join()) return;
  clearChips();
  for (const image of images) chip(`/thumbnail/${image}`, image);
};
