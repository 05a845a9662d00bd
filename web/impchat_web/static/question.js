// The text box of the question.

import { find, targetOf } from "./dom.js";

export const question = () => /** @type {HTMLTextAreaElement} */ (find("#question textarea"));

/** @param {Event} event */
export const isInQuestion = (event) => Boolean(targetOf(event)?.matches("#question textarea"));

/** @param {string} text */
export const write = (text) => {
  if (question().value === text) return;
  question().value = text;
  question().dispatchEvent(new Event("input", { bubbles: true })); // Gradio reads the value at this event
};

/** @param {string} text */
export const type = (text) => {
  write(text);
  question().focus();
};

/** @param {string} text */
export const insert = (text) => {
  question().focus();
  document.execCommand("insertText", false, text); // like typed text, so that it can be undone
};
