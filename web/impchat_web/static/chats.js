// The list of chats: one tab stop, arrow keys move within it; renaming, deleting, restoring.

import { act } from "./actions.js";
import { again } from "./again.js";
import { all, element, find, parsed, seek, targetOf } from "./dom.js";
import { manage } from "./gradio.js";
import { morph } from "./morph.js";
import { open } from "./navigation.js";
import { page } from "./state.js";
import { say } from "./words.js";

const MORE = 100; // chats that "Show older chats" adds

const links = () => all("#history li a");

/** @type {string | null} HTML to draw after a title has been edited */
let listWaits = null;

/** @param {string} html */
export const drawList = (html) => {
  listWaits = seek("#history input") ? html : null;
  if (listWaits !== null) return;
  const focused = seek("#history li:focus-within a");
  const at = focused ? links().indexOf(focused) : -1;
  morph(find("#history .list"), parsed(html));
  if (at >= 0 && document.activeElement === document.body) (links()[at] ?? links().at(-1))?.focus(); // its chat was removed
};

addEventListener("keydown", (event) => {
  const target = /** @type {HTMLElement | null} */ (targetOf(event));
  const entry = target?.closest("#history li");
  if (!target || !entry || target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const column = links();
  const row = all("a, button", entry);
  const up = row[0] ? column.indexOf(row[0]) : -1;
  const across = row.indexOf(target);
  /** @type {Record<string, HTMLElement | undefined>} */
  const moves = {
    ArrowDown: column[up + 1],
    ArrowUp: column[up - 1],
    Home: column[0],
    End: column.at(-1),
    ArrowRight: row[across + 1],
    ArrowLeft: row[across - 1],
  };
  const to = moves[event.key];
  if (!to) return;
  event.preventDefault();
  for (const link of column) link.tabIndex = link.parentElement === to.parentElement ? 0 : -1;
  to.focus();
});

/** @param {HTMLElement} entry */
const rename = (entry) => {
  const conversation = entry.dataset.conversation ?? "";
  const link = find("a", entry);
  const field = element("input", { type: "text", value: link.textContent ?? "", "aria-label": say("rename") });
  let done = false;
  /** @param {boolean} save */
  const finish = (save) => {
    if (done) return;
    done = true;
    field.replaceWith(link);
    if (listWaits !== null) drawList(listWaits);
    const title = field.value.trim();
    if (save && title && title !== link.textContent) manage({ do: "rename", conversation, title });
    link.focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") finish(true);
    if (event.key === "Escape") finish(false);
  });
  field.addEventListener("blur", () => finish(true));
  link.replaceWith(field);
  field.select();
  field.focus();
};

/** @param {string} conversation */
export const undoButton = (conversation) =>
  element("button", { type: "button", class: "quiet", "data-do": "undo", "data-conversation": conversation }, say("undo"));

let gone = ""; // the open conversation was deleted
let reopen = ""; // and is being restored

/**
 * The open conversation was deleted.
 *
 * @param {string} conversation
 */
export const leave = (conversation) => {
  gone = conversation;
  open("");
};

/** Opens a conversation again that was open when it was deleted. */
export const returnTo = () => {
  if (!reopen) return;
  open(reopen);
  reopen = "";
};

/** @param {HTMLElement} button of a line of the list */
const entryOf = (button) => /** @type {HTMLElement} */ (button.closest("li"));

act({
  rename: (button) => rename(entryOf(button)),
  delete: (button, event) => {
    if (again(event)) return;
    manage({ do: "delete", conversation: entryOf(button).dataset.conversation ?? "" });
  },
  older: () => {
    page.listed += MORE;
    manage({ do: "list", conversation: "" });
  },
  undo: ({ dataset: { conversation = "" } }) => {
    reopen = gone === conversation ? gone : "";
    manage({ do: "restore", conversation });
  },
});
