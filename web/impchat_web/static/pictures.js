// Pictures: the viewer and the editor are loaded by their first use; boxes in an answer highlight their frames.

import { act } from "./actions.js";
import { chips } from "./chips.js";
import { all, element, seek } from "./dom.js";

/** @type {Promise<unknown> | null} */
let styled = null;

/** The styles of viewer and editor. Without them, both still work. */
const styles = () => {
  styled ??= new Promise((done) => {
    const link = element("link", { rel: "stylesheet", href: new URL("./pictures.css", import.meta.url).href });
    link.addEventListener("load", done);
    link.addEventListener("error", done);
    document.head.append(link);
  });
  return styled;
};

/**
 * Highlights the frame of a box in an answer; with null, none.
 *
 * @param {HTMLElement | null} chip
 */
const highlight = (chip) => {
  for (const lit of all("#thread .lit")) lit.classList.remove("lit");
  const figure = chip && seek("figure.marked", /** @type {HTMLElement} */ (chip.closest(".answer")));
  if (!figure) return null;
  figure.classList.add("lit");
  seek(`g[data-box="${chip.dataset.box}"]`, figure)?.classList.add("lit");
  return figure;
};

/** @param {Event} event */
const chipOf = ({ target }) => (target instanceof Element ? /** @type {HTMLElement | null} */ (target.closest("#thread .box")) : null);
for (const kind of ["pointerover", "focusin"]) addEventListener(kind, (event) => highlight(chipOf(event)));

act({
  box: (button) => highlight(button)?.scrollIntoView({ block: "nearest" }),
  enlarge: async (button) => {
    const [{ enlarge }] = await Promise.all([import("./viewer.js"), styles()]);
    enlarge(button);
  },
  retouch: async (button) => {
    const shown = button.dataset.picture;
    const made = shown ? chips().find((each) => each.dataset.image === shown) : button.closest(".chip");
    if (!(made instanceof HTMLElement) || !made.dataset.image) return; // still on its way, or removed
    const [{ edit }] = await Promise.all([import("./editor.js"), styles()]);
    await edit(made);
  },
});
