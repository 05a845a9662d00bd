// Draws a state from the server. Its `event` names what happened.

import { removed } from "./again.js";
import { follow } from "./answers.js";
import { drawList, leave, returnTo, undoButton } from "./chats.js";
import { clearChips, drawChips } from "./chips.js";
import { byHand, find, seek } from "./dom.js";
import { draft, draftChanged, enterDraft, forget, left, stay } from "./drafts.js";
import { turnEnds } from "./gradio.js";
import { menu, menuIsOpen } from "./menu.js";
import { isLatest } from "./navigation.js";
import { announce, notice } from "./notices.js";
import { question } from "./question.js";
import { toEnd } from "./scrolling.js";
import { asking, conclude } from "./sending.js";
import { start } from "./start.js";
import { page, settle } from "./state.js";
import { announceChange, refreshed, refreshing } from "./tabs.js";
import { drawThread } from "./thread.js";
import { uploads } from "./uploads.js";
import { say } from "./words.js";

/** @typedef {import("./state.js").State} State */

/** @param {State} state */
const draw = (state) => {
  page.seen = state.stamp;
  if (state.words) start(state);
  if (state.listed) page.listed = state.listed;
  const { event } = state;
  if (event === "cancelled") return;
  if (state.thread) drawThread(state.thread);
  if (state.list !== undefined) drawList(state.list);
  if (event === "opened") drawOpened(state);
  if (event === "sent") drawSent(state);
  if (event === "ended") {
    page.answer = null;
    if (!refreshing) announce(seek("#thread .turn:last-child .words")?.innerText ?? "");
  }
  if (event === "elsewhere" && asking) forget(asking.draft.conversation);
  if (event !== "managed" && event !== "elsewhere") void follow(state.answer);
  if (refreshing && !uploads.size) drawChips(state.pictures);
  if (event === "gone") leave(state.conversation);
  if (event === "managed") returnTo();
  if (event === "opened" || event === "sent") toEnd();
  drawNotice(state);
  if (["managed", "gone"].includes(event)) removed();
  if (["sent", "elsewhere", "managed", "gone"].includes(event) && !refreshing) announceChange();
  find("#title").textContent = state.title;
  document.title = state.title ? `${state.title} · ImpChat` : "ImpChat";
  const free = ["opened", "sent"].includes(event) || document.activeElement === document.body; // else the user is using it
  if (byHand.matches && free && !refreshing) question().focus({ preventScroll: true });
};

/** @param {State} state */
const drawOpened = (state) => {
  page.answer = null;
  if (isLatest()) {
    settle(state.conversation, Boolean(state.words));
    enterDraft(state.conversation, state.draft);
    clearChips();
    drawChips(state.pictures);
  } else page.conversation = state.conversation; // another one is opening, and the address may name it
  if (menuIsOpen()) menu(false);
};

/** @param {State} state */
const drawSent = ({ conversation }) => {
  forget(draft.conversation);
  draft.conversation = conversation;
  if (question().value && !left) draftChanged(); // the next question has been started
  settle(conversation, false);
  clearChips();
  announce(say("answering"));
};

/** @param {State} state */
const drawNotice = ({ event, notice: given }) => {
  if (!given && (refreshing || (event === "opened" && seek("#notice .done")))) return; // "Deleted: Undo" stays while the next chat opens
  notice(given?.kind, given?.text, given?.undo ? undoButton(given.undo) : null);
};

/**
 * Finishes an event with its `state`, or without one.
 *
 * @param {State} [state]
 */
const ends = (state) => {
  refreshed();
  if (!state && left && isLatest()) stay();
  conclude(state?.event);
  turnEnds();
};

/**
 * Called after each of Gradio's events, even if the server sent nothing.
 *
 * @param {State} state
 */
export const show = (state) => {
  const came = state.stamp > page.seen;
  try {
    if (came) draw(state);
    else notice("error", say("lost"));
  } finally {
    document.body.classList.add("ready");
    ends(came ? state : undefined);
  }
};

// Gradio does not call `show` if a request did not reach the server.
const reach = window.fetch;
window.fetch = async (...request) => {
  try {
    return await reach(...request);
  } catch (error) {
    const [target] = request;
    const address = target instanceof Request ? target.url : target.toString();
    if (address.includes("/gradio_api/run/")) {
      notice("error", say("lost"));
      ends();
    }
    throw error;
  }
};
