// Pictures of the draft on their way to the server: uploading, the engine's progress, removing.

import { act } from "./actions.js";
import { again } from "./again.js";
import { chip, chips, dropChip, fitting, place, status, suggest } from "./chips.js";
import { element, find } from "./dom.js";
import { draft, draftChanged, forget, left, saveWords, stored, whenThere } from "./drafts.js";
import { notice } from "./notices.js";
import { question } from "./question.js";
import { linesOf, post, reason, refusal } from "./requests.js";
import { settle } from "./state.js";
import { say } from "./words.js";

/** @typedef {import("./drafts.js").Draft} Draft */

/** @type {Set<Promise<void>>} uploads that the server has not confirmed */
export const uploads = new Set();
let lastUpload = Promise.resolve(); // one at a time: the first may have to create the conversation

/**
 * Adds a picture to the draft.
 *
 * @param {File} file
 */
export const add = (file) => addFrom(file, URL.createObjectURL(file));

/**
 * Adds a picture to the draft.
 *
 * @param {File | (() => Promise<Blob>)} source a file, or a function that fetches one
 * @param {string} shown the address to show meanwhile
 */
export const addFrom = (source, shown) => {
  if (left) return whenThere(() => addFrom(source, shown));
  notice();
  const made = chip(shown);
  const mine = draft; // the upload belongs to this draft even if another conversation opens meanwhile
  made.classList.add("reading");
  status(say("reading"));
  const arrived = lastUpload.then(() => upload(source, made, mine));
  uploads.add(arrived);
  lastUpload = arrived.finally(() => uploads.delete(arrived));
};

/**
 * Resolves when the server has the picture; the engine's progress follows later.
 *
 * @param {File | (() => Promise<Blob>)} source
 * @param {HTMLElement} made its chip
 * @param {Draft} mine
 */
const upload = async (source, made, mine) => {
  if (made.dataset.detached) return; // removed before its upload started
  /** @type {Blob | null} */
  let file = source instanceof Blob ? source : null;
  try {
    if (!(source instanceof Blob)) file = await source();
    const response = await fetch(`/attach?c=${encodeURIComponent(mine.conversation)}`, { method: "POST", body: file });
    if (!response.ok) throw Error(await refusal(response));
    const lines = linesOf(response);
    const { value } = await lines.next();
    if (!mine.conversation) begin(mine, value.conversation);
    if (made.dataset.detached) {
      await detach(value.image, mine.conversation);
      return;
    }
    if (mine.conversation !== draft.conversation) return;
    if (!made.isConnected) place(made); // another conversation was shown meanwhile
    fitting.set(made, value.asks);
    attached(made, value.image);
    suggest();
    void watch(made, lines);
  } catch (error) {
    mine.failures += 1;
    dropChip(made);
    const readable = !file || (await file.slice(0, 1).arrayBuffer().then(() => true, () => false));
    const name = file instanceof File ? file.name : "";
    const which = uploads.size > 1 && name ? `${name}: ` : "";
    notice("error", readable ? which + reason(error) : say("unreadable", { name }));
  }
};

/**
 * A picture has created the conversation: the text typed before belongs to it too.
 *
 * @param {Draft} mine
 * @param {string} conversation
 */
const begin = (mine, conversation) => {
  mine.conversation = conversation;
  const before = stored("");
  if (mine === draft) {
    settle(conversation, true);
    draftChanged();
  } else if (draft.conversation && before) void saveWords(conversation, before);
  else return;
  forget("");
};

/**
 * @param {HTMLElement} made
 * @param {string} image
 */
const attached = (made, image) => {
  if (chips().some((other) => other !== made && other.dataset.image === image)) return dropChip(made);
  made.dataset.image = image;
  const shown = find("img", made);
  URL.revokeObjectURL(shown.src); // no effect for a sample
  shown.src = `/thumbnail/${image}`; // the server can show formats that the browser cannot
};

/**
 * @param {HTMLElement} made
 * @param {ReturnType<typeof linesOf>} lines
 */
const watch = async (made, lines) => {
  try {
    for await (const line of lines) {
      if (!made.isConnected) continue;
      if (line.type === "small_print") hintAt(made);
      if (line.type === "reading") status(say("reading_percent", line));
      if (line.type === "ready" || line.type === "failed") {
        for (const each of chips()) each.classList.remove("reading");
        status(line.type === "ready" ? say("ready") : "");
        if (line.error) notice("error", line.error);
      }
    }
  } catch {
    // The connection to the server is lost; the user's next action reports it.
  }
  made.classList.remove("reading");
};

/**
 * Small print in a picture is lost at the size that the model sees: the next step is a part of it.
 *
 * @param {HTMLElement} made its chip
 */
const hintAt = (made) => {
  if (find("#notice").childElementCount) return; // a failure is more important
  const crop = element("button", { type: "button", class: "quiet", "data-do": "retouch", "data-picture": made.dataset.image ?? "" }, say("pics_crop_part"));
  notice("hint", say("pics_small_print"), crop);
};

/**
 * Replaces a picture of the draft by a changed one, after the uploads so far. Throws the sentence of a refusal.
 *
 * @param {HTMLElement} made its chip
 * @param {() => BodyInit} edits
 * @param {Draft} mine
 * @returns {Promise<string>} the legend of its marks
 */
export const replace = (made, edits, mine) => {
  const replaced = lastUpload.then(async () => {
    const query = new URLSearchParams({ c: mine.conversation, image: made.dataset.image ?? "" });
    const response = await fetch(`/pictures/edit?${query}`, { method: "POST", body: edits() });
    if (!response.ok) throw Error(await refusal(response));
    const lines = linesOf(response);
    const { legend } = (await lines.next()).value;
    const { value } = await lines.next();
    made.classList.add("reading");
    status(say("reading"));
    fitting.set(made, value.asks);
    attached(made, value.image);
    suggest();
    if (find("#notice").querySelector("[data-do=retouch]")) notice();
    void watch(made, lines);
    return legend;
  });
  const settled = replaced.then(() => {}, () => {});
  uploads.add(settled);
  lastUpload = settled.finally(() => uploads.delete(settled));
  return replaced;
};

/**
 * @param {string} image
 * @param {string} conversation
 */
const detach = (image, conversation) =>
  post(`/detach?c=${encodeURIComponent(conversation)}&image=${encodeURIComponent(image)}`);

act({
  detach: (button, event) => {
    if (again(event)) return;
    const made = /** @type {HTMLElement} */ (button.closest(".chip"));
    if (made.dataset.image) void detach(made.dataset.image, draft.conversation);
    made.dataset.detached = "yes";
    dropChip(made);
    question().focus();
  },
});
