// What buttons and links do: a click on an element with `data-do="NAME"` calls the action NAME.

import { targetOf } from "./dom.js";

/** @typedef {(button: HTMLElement, event: MouseEvent) => unknown} Action */

/** @type {Record<string, Action>} */
const actions = {};

/** @param {Record<string, Action>} more by name */
export const act = (more) => {
  Object.assign(actions, more);
};

addEventListener("click", (event) => {
  const button = /** @type {HTMLElement | null | undefined} */ (targetOf(event)?.closest("[data-do]"));
  if (!button || event.ctrlKey || event.metaKey || event.shiftKey) return; // let the browser open a link in a new tab
  event.preventDefault();
  const action = actions[button.dataset.do ?? ""];
  if (!action) throw Error(`No module has the action ${button.dataset.do}.`);
  action(button, event);
});
