// What buttons and links do: a click on an element with `data-do="NAME"` calls the action NAME.

import { targetOf } from "./dom.js";

/** @typedef {(button: HTMLElement, event: MouseEvent) => unknown} Action */

/** @type {Record<string, Action>} */
const actions = {};

/** @param {Record<string, Action>} more by name */
export const act = (more) => {
  Object.assign(actions, more);
};

/**
 * Where the pointer went down: a picture that arrives may move a button away from under it before it goes up, and the
 * browser then reports a click on what contains both places.
 *
 * @type {{ button: HTMLElement | null, x: number, y: number }}
 */
let pressed = { button: null, x: 0, y: 0 };

/** @param {Event} event */
const buttonOf = (event) => /** @type {HTMLElement | null} */ (targetOf(event)?.closest("[data-do]") ?? null);

addEventListener("pointerdown", (event) => (pressed = { button: buttonOf(event), x: event.clientX, y: event.clientY }), true);

/** @param {MouseEvent} event */
const pressedButton = (event) => {
  const { button, x, y } = pressed;
  const stayed = Math.hypot(event.clientX - x, event.clientY - y) < 10; // CSS pixels: not a drag
  return event.detail && stayed && button?.isConnected ? button : null;
};

addEventListener("click", (event) => {
  const button = buttonOf(event) ?? pressedButton(event);
  if (!button || event.ctrlKey || event.metaKey || event.shiftKey) return; // let the browser open a link in a new tab
  event.preventDefault();
  const action = actions[button.dataset.do ?? ""];
  if (!action) throw Error(`No module has the action ${button.dataset.do}.`);
  action(button, event);
});
