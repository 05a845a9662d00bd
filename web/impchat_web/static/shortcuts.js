// Keys that work anywhere on the page. Escape closes what is open, or stops the answer.

import { find, seek } from "./dom.js";
import { menu, menuIsOpen } from "./menu.js";

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || seek("dialog[open]")) return;
  if (menuIsOpen()) menu(false);
  else if (document.body.classList.contains("answering")) find("#stop").click();
});
