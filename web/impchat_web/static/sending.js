// Sending: each question once, and never a blank one.

import { act } from "./actions.js";
import { chips } from "./chips.js";
import { find, targetOf } from "./dom.js";
import { draft, draftIsSaved, left, saveWords, store } from "./drafts.js";
import { inTurn } from "./gradio.js";
import { isInQuestion, question, type, write } from "./question.js";
import { here } from "./state.js";
import { have } from "./thread.js";
import { uploads } from "./uploads.js";

/**
 * The question being sent: its draft, and its text once that is `taken` out of the box. `underway`: the next state from
 * the server belongs to it.
 *
 * @typedef {{ draft: import("./drafts.js").Draft, words: string, taken: boolean, underway: boolean }} Asking
 */

/** @type {Asking | null} */
export let asking = null;

const isBlank = () => !question().value.trim() && !chips().length;

const maySend = () => {
  if (asking || isBlank()) return false;
  asking = { draft, words: "", taken: false, underway: false }; // now, because Gradio calls `sending` a moment later
  if (left || !uploads.size) take(asking); // text typed later is the next question; during uploads, still this one
  return true;
};

/** @param {Asking} of */
const take = (of) => {
  Object.assign(of, { words: question().value, taken: true });
  write("");
  draftIsSaved();
};

/** Takes the text of a question that waits for its pictures. */
export const takeWaiting = () => {
  if (asking && !asking.taken) take(asking);
};

/** Keeps a question in this tab that the server may not have received. */
export const keepAsked = () => {
  if (asking?.taken) store(asking.draft.conversation, asking.words);
};

/**
 * Ends the question that is under way; its text returns unless the server has taken it.
 *
 * @param {string} [event] of the state that the server sent
 */
export const conclude = (event = "") => {
  if (!asking?.underway) return;
  const { words, taken, draft: of } = asking;
  asking = null;
  if (!taken || ["sent", "elsewhere"].includes(event)) return;
  if (of !== draft || left) void saveWords(of.conversation, words);
  else write([words, question().value].filter(Boolean).join("\n"));
};

/**
 * Waits for the pictures and for earlier events. Gradio then sends the result to `View.send` of page.py.
 *
 * @param {import("./state.js").State} state
 */
export const sending = async (state) => {
  if (!asking) throw Error("No question is being sent.");
  const mine = asking;
  const arrives = left !== null;
  const { failures } = draft;
  await Promise.all(uploads);
  await new Promise((begin) => inTurn(() => begin(null)));
  if (arrives) mine.draft = draft;
  const cancelled = !arrives && mine.draft.failures > failures;
  if (!cancelled && !mine.taken) take(mine);
  mine.underway = true;
  return [mine.words, { ...here(state), asks: mine.draft.conversation, have: have(), cancelled }];
};

const showBlank = () => find("#send").setAttribute("aria-disabled", String(isBlank()));

export const watchBlank = () => {
  new MutationObserver(showBlank).observe(find("#chips"), { childList: true });
  showBlank();
};

addEventListener("input", (event) => isInQuestion(event) && showBlank());

/** @param {Event} event */
const halt = (event) => {
  event.stopImmediatePropagation();
  event.preventDefault();
};
addEventListener(
  "keypress",
  (event) => {
    if (!isInQuestion(event) || event.key !== "Enter") return;
    if (event.isComposing) event.stopPropagation(); // Enter ends the input of a Chinese word
    else if (!event.shiftKey && !maySend()) halt(event);
  },
  true,
);
addEventListener("click", (event) => targetOf(event)?.closest("#send") && !maySend() && halt(event), true);

act({
  ask: (button) => {
    type(button.textContent ?? "");
    if (chips().length) find("#send").click();
  },
});
