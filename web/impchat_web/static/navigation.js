// Opening conversations, and leaving the page.

import { act } from "./actions.js";
import { leaveDraft, left, saveDraft } from "./drafts.js";
import { inTurn, trigger, turnEnds } from "./gradio.js";
import { question } from "./question.js";
import { keepAsked, takeWaiting } from "./sending.js";
import { inAddress } from "./state.js";

let wanted = 0; // number of the latest navigation: of several in a row, only the last is shown
let asked = 0;

/** Whether the latest state can be of the conversation that the user opened last. */
export const isLatest = () => asked === wanted;

/** @param {string} conversation "" opens the empty page */
export const open = (conversation) => {
  if (!left) takeWaiting();
  const { saved } = leaveDraft();
  const mine = ++wanted;
  inTurn(async () => {
    await saved;
    if (mine < wanted) return turnEnds();
    asked = mine;
    trigger("navigate", { conversation });
  });
};

addEventListener("popstate", () => open(inAddress()));

addEventListener("pagehide", () => {
  keepAsked();
  // A keepalive request may have at most 64 KiB. Text that does not arrive is still in this tab after a reload.
  if (!left) void saveDraft({ keepalive: question().value.length < 20_000 });
});

act({ open: (button) => open(/** @type {HTMLElement} */ (button.closest("li")).dataset.conversation ?? "") });
