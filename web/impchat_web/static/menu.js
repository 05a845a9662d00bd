// The side panel on narrow screens, and the link that skips it.

import { act } from "./actions.js";
import { find, targetOf } from "./dom.js";
import { question } from "./question.js";

export const menuIsOpen = () => document.body.classList.contains("menu");

/** @param {boolean} shown */
export const menu = (shown) => {
  document.body.classList.toggle("menu", shown);
  find("[data-do=menu]").setAttribute("aria-expanded", String(shown));
  (shown ? find("#new") : find("[data-do=menu]")).focus();
};

document.addEventListener(
  "click",
  (event) => {
    if (menuIsOpen() && !targetOf(event)?.closest("#side, [data-do=menu]")) menu(false);
  },
  true, // before the action of the click, which may move the focus
);

act({
  menu: () => menu(!menuIsOpen()),
  skip: () => {
    if (menuIsOpen()) menu(false);
    question().focus();
  },
});
