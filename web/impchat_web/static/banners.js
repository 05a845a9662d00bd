// The banner above the thread: the demo or an unverified model answers.

import { act } from "./actions.js";
import { notice } from "./notices.js";

const KEY = "impchat.banner";

export const drawBanner = () => document.body.classList.toggle("no-banner", localStorage.getItem(KEY) === "hidden");

act({
  "hide-banner": () => {
    localStorage.setItem(KEY, "hidden");
    drawBanner();
  },
  "use-unverified": async (button) => {
    const use = /** @type {HTMLButtonElement} */ (button);
    use.disabled = true;
    const response = await fetch(`/unverified?model=${encodeURIComponent(use.dataset.model ?? "")}`, { method: "POST" });
    if (response.ok) return location.reload();
    use.disabled = false;
    notice("error", (await response.json()).error);
  },
});
