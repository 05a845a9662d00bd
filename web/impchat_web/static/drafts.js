// The draft's text: kept in this tab until the server has saved it, and sent to the model while it is typed.

import { inTurn, turnEnds } from "./gradio.js";
import { isInQuestion, question, write } from "./question.js";
import { post } from "./requests.js";
import { page, settle } from "./state.js";

/** @typedef {{ conversation: string, failures: number }} Draft `failures`: pictures that could not be added */

/** @type {Draft} a new object for each visit of a conversation */
export let draft = { conversation: page.conversation, failures: 0 };

/** @type {{ words: string, saved: Promise<void> } | null} while another conversation opens: the one that was left */
export let left = { words: "", saved: Promise.resolve() };

/** @param {string} conversation */
const key = (conversation) => `impchat.draft.${conversation}`;

/**
 * Text that the server does not have yet; null: it has everything.
 *
 * @param {string} conversation
 */
export const stored = (conversation) => sessionStorage.getItem(key(conversation));

/** @param {string} conversation */
export const forget = (conversation) => sessionStorage.removeItem(key(conversation));

/**
 * @param {string} conversation
 * @param {string} words
 */
export const store = (conversation, words) => {
  try {
    sessionStorage.setItem(key(conversation), words);
  } catch {
    // Exceeds the browser's quota: only the server keeps it.
  }
};

/**
 * @param {string} conversation
 * @param {string} words
 * @param {RequestInit} [options]
 */
export const saveWords = async (conversation, words, options) => {
  store(conversation, words);
  if (!conversation) return; // a new conversation has no draft on the server
  const saved = await post(`/draft?c=${encodeURIComponent(conversation)}`, words, options);
  if (saved && stored(conversation) === words) forget(conversation);
};

let draftTimer = 0;

export const draftIsSaved = () => {
  clearTimeout(draftTimer);
  draftTimer = 0;
};

export const draftChanged = () => {
  clearTimeout(draftTimer);
  draftTimer = setTimeout(() => void saveDraft(), 800);
};

/** @param {RequestInit} [options] */
export const saveDraft = async (options) => {
  if (!draftTimer || left) return;
  draftIsSaved();
  await saveWords(draft.conversation, question().value, options);
};

// The model reads words as soon as they are complete, so that little is left to read when the question is sent.
let typedTimer = 0;
const typed = () => {
  const words = question().value;
  clearTimeout(typedTimer);
  typedTimer = setTimeout(
    () => {
      if (left || !draft.conversation || page.answer || !words.trim() || words.length > 16000) return;
      fetch(`/typed?c=${encodeURIComponent(draft.conversation)}`, { method: "POST", body: words }).catch(() => {});
    },
    /[\s\u3040-\u9fff]$/.test(words) ? 0 : 400,
  );
};

addEventListener("input", (event) => {
  if (!isInQuestion(event)) return;
  draftChanged();
  typed();
});

/** Text typed from now on belongs to the conversation that opens. */
export const leaveDraft = () => {
  if (left) return left;
  left = { words: question().value, saved: saveDraft() };
  write("");
  draftIsSaved();
  return left;
};

/**
 * @param {string} conversation
 * @param {string} words its text on the server
 */
export const enterDraft = (conversation, words) => {
  draft = { conversation, failures: 0 };
  const typed = question().value; // while the conversation was opening
  const unsaved = stored(conversation);
  left = null;
  write((unsaved ?? words) + typed);
  if (typed || unsaved !== null) draftChanged();
  else draftIsSaved();
};

/** The other conversation did not open. */
export const stay = () => {
  write((left?.words ?? "") + question().value);
  left = null;
  settle(page.conversation, true); // the browser's back button has changed the address
  draftChanged();
};

/**
 * Calls `then` once the conversation that the user opened is shown.
 *
 * @param {() => void} then
 */
export const whenThere = (then) => {
  if (!left) return then();
  inTurn(() => {
    turnEnds();
    whenThere(then);
  });
};
