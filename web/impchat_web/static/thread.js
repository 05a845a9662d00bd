// The messages of the open conversation.

import { all, find, parsed } from "./dom.js";
import { morph } from "./morph.js";

export const turns = () => find("#thread .turns");

/** @param {string | undefined} message */
const numberOf = (message) => [...turns().children].findIndex((turn) => turn instanceof HTMLElement && turn.dataset.message === message);

/** @param {{ after: string, html: string }} thread */
export const drawThread = ({ after, html }) => morph(turns(), parsed(html), after ? numberOf(after) + 1 : 0);

/** The last complete message on the page. */
export const have = () => all(":scope > .turn:not(#live)", turns()).at(-1)?.dataset.message ?? "";

/**
 * Draws what a running answer has become.
 *
 * @param {{ html: string, from?: number }} line the whole answer, or its blocks starting at number `from`
 */
export const grow = (line) => {
  if (line.from !== undefined) return morph(find("#live .words"), parsed(line.html), line.from);
  const answer = /** @type {HTMLElement} */ (parsed(line.html)[0]);
  const number = numberOf(answer.dataset.message);
  morph(turns(), [answer], number < 0 ? turns().childNodes.length : number);
};
