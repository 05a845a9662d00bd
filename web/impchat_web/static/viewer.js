// A picture of the conversation, as large as the window allows.

import { act } from "./actions.js";
import { element, find } from "./dom.js";
import { say } from "./words.js";

export const viewer = element("dialog", { id: "viewer" });
viewer.addEventListener("click", () => viewer.close());

act({
  enlarge: (button) => {
    const large = element("img", { src: `/image/${button.dataset.image}`, alt: find("img", button).alt });
    large.addEventListener("load", () => {
      large.style.setProperty("--width", `${large.naturalWidth}px`);
      large.style.setProperty("--ratio", String(large.naturalWidth / large.naturalHeight));
    });
    viewer.replaceChildren(large, element("button", { type: "button", class: "tool close", "aria-label": say("hide") }));
    viewer.showModal();
  },
});
