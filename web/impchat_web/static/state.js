// What the page shows: the open conversation, its running answer, the length of the list. The server owns the rest.

/**
 * What the server sends after each event (`State` in page.py). Most of it comes only if there is something new to draw.
 *
 * @typedef {object} State
 * @property {string} event what happened: opened, sent, elsewhere, ended, managed, gone, refused or cancelled
 * @property {number} stamp increases with each state
 * @property {string} conversation
 * @property {string} title
 * @property {string} answer the running one; "" without one
 * @property {string[]} pictures of the draft: their hashes
 * @property {string} draft the text of a conversation that was opened
 * @property {{ kind: string, text: string, undo?: string } | null} notice
 * @property {string} [list] the HTML of the chats
 * @property {{ after: string, html: string }} [thread] the messages that follow `after`; all of them if it is ""
 * @property {number} [listed] with the first state, as the following ones
 * @property {Record<string, string>} [words]
 * @property {string} [language]
 * @property {string} [model]
 */

/** The conversation that the address names. */
export const inAddress = () => new URLSearchParams(location.search).get("c") ?? "";

export const page = {
  conversation: inAddress(),
  /** @type {string | null} the running answer; null: unknown until the next state */
  answer: "",
  seen: 0, // the stamp of the latest state
  listed: 0, // chats in the list, at most
};

/**
 * Shows `conversation` in the address.
 *
 * @param {string} conversation
 * @param {boolean} replace the current entry of the browser's history
 */
export const settle = (conversation, replace) => {
  page.conversation = conversation;
  if (inAddress() === conversation) return;
  const address = conversation ? `/?c=${encodeURIComponent(conversation)}` : "/";
  history[replace ? "replaceState" : "pushState"](null, "", address);
};

/**
 * The state to send with an event: what the server has sent, without what it need not get back.
 *
 * @param {State} state
 */
export const here = ({ words, language, thread, list, draft, ...state }) => ({
  ...state,
  conversation: page.conversation,
  answer: page.answer,
  listed: page.listed,
});
