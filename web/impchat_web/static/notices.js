// The line above the question that says what happened, and announcements for screen readers.

import { act } from "./actions.js";
import { element, find } from "./dom.js";
import { say } from "./words.js";

/**
 * Replaces the notice; without text, removes it.
 *
 * @param {string} [kind] error, hint or done
 * @param {string} [text]
 * @param {Node | null} [action] a button after the text
 */
export const notice = (kind, text, action) => {
  const place = find("#notice");
  place.replaceChildren();
  if (!text) return;
  const line = element("div", { class: `line ${kind}` }, element("span", { dir: "auto" }, text));
  if (action) line.append(action);
  line.append(element("button", { type: "button", class: "tool close", "data-do": "hide-notice", "aria-label": say("hide") }));
  place.append(line);
};

/** @param {string} text */
export const announce = (text) => {
  find("#announce").textContent = text;
};

act({ "hide-notice": () => notice() });
