// Other tabs and devices: their changes are drawn when a tab announces them or when this page gets the focus.

import { left } from "./drafts.js";
import { inTurn, trigger, turnEnds } from "./gradio.js";
import { asking } from "./sending.js";
import { page } from "./state.js";
import { have } from "./thread.js";

export let refreshing = false;

export const refreshed = () => {
  refreshing = false;
};

const refresh = () => {
  if (refreshing || document.hidden || !page.seen || page.answer || asking || left) return;
  refreshing = true;
  const { conversation } = page;
  inTurn(() => {
    if (page.answer || conversation !== page.conversation) {
      refreshed();
      turnEnds();
    } else if (conversation) trigger("ended", { conversation, have: have() });
    else trigger("manage", { do: "list", conversation });
  });
};

const tabs = new BroadcastChannel("impchat");

export const announceChange = () => tabs.postMessage("");

tabs.addEventListener("message", refresh);
addEventListener("focus", refresh);
document.addEventListener("visibilitychange", refresh);
