// Gradio's events, one at a time: responses to concurrent events could be drawn in the wrong order.

/** @typedef {(event: string, data: object) => void} Trigger */

/** @type {Trigger | null} */
let send = null;

/** @param {Trigger} given Gradio's function that starts an event */
export const bus = (given) => {
  send = given;
};

/**
 * Starts an event of page.py: `navigate`, `ended` or `manage`. Call it in turn.
 *
 * @type {Trigger}
 */
export const trigger = (event, data) => send?.(event, data);

/** @type {(() => unknown)[]} */
const waiting = [];
let busy = true; // the page load is the first event

const nextTurn = () => {
  if (busy) return;
  const begin = waiting.shift();
  if (!begin) return;
  busy = true;
  begin();
};

/**
 * Calls `begin` after earlier events have ended. The next one waits for `turnEnds`.
 *
 * @param {() => unknown} begin
 */
export const inTurn = (begin) => {
  waiting.push(begin);
  nextTurn();
};

export const turnEnds = () => {
  busy = false;
  nextTurn();
};

/**
 * Changes the list of chats: `View.manage` of page.py.
 *
 * @param {{ do: string, conversation: string, title?: string }} what
 */
export const manage = (what) => inTurn(() => trigger("manage", what));
