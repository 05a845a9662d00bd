// Where pictures come from: the file picker, dropping, pasting, the samples.

import { act } from "./actions.js";
import { element, takesText } from "./dom.js";
import { whenThere } from "./drafts.js";
import { notice } from "./notices.js";
import { insert, isInQuestion, question } from "./question.js";
import { add, addFrom } from "./uploads.js";
import { say } from "./words.js";

export const picker = element("input", { type: "file", accept: "image/*,.heic,.heif,.avif", multiple: "", id: "picker", "aria-hidden": "true", tabindex: "-1" });
picker.addEventListener("change", () => {
  for (const file of picker.files ?? []) add(file);
  picker.value = "";
  question().focus();
});

/** @param {DragEvent} event */
const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

let over = 0; // nesting depth of the elements under the dragged file
/** @param {number} depth */
const hover = (depth) => {
  over = depth;
  document.body.classList.toggle("dropping", over > 0);
};
addEventListener("dragenter", (event) => carriesFiles(event) && hover(over + 1));
addEventListener("dragleave", (event) => carriesFiles(event) && hover(Math.max(0, over - 1)));
addEventListener("dragover", (event) => {
  if (carriesFiles(event) || !takesText(event)) event.preventDefault(); // otherwise a dropped link would replace the page
});
addEventListener("drop", (event) => {
  if (!carriesFiles(event) && takesText(event)) return;
  event.preventDefault();
  hover(0);
  const data = event.dataTransfer;
  if (!data) return;
  const items = [...data.items].filter(({ kind }) => kind === "file");
  const entries = items.map((item) => item.webkitGetAsEntry?.());
  const files = items.map((item) => item.getAsFile());
  const text = data.getData("text/plain").trim();
  const isPicture = /<img\b/i.test(data.getData("text/html")); // of another page, without its file
  whenThere(() => {
    for (const [number, file] of files.entries()) if (file && !entries[number]?.isDirectory) add(file);
    const folder = entries.find((entry) => entry?.isDirectory);
    if (folder) notice("error", say("folder", { name: folder.name }));
    else if (!files.length && isPicture) notice("error", say("elsewhere"));
    else if (!files.length && text) insert(text);
  });
});

// Table cells are copied as text and as a picture: the text is pasted and the picture offered. A web page's image may
// be copied with its address, a file with its name.
/**
 * @param {string} line
 * @param {File} file
 */
const isName = (line, { name }) => line === name || line.endsWith(`/${name}`) || line.endsWith(`\\${name}`);
/**
 * @param {string} text
 * @param {File[]} files
 */
const names = (text, files) =>
  text.split(/\s*\n/).every((line) => /^(https?|file):\S+$/.test(line) || files.some((file) => isName(line, file)));

/** @type {File[]} */
let pasted = [];
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  const text = event.clipboardData?.getData("text/plain").trimEnd() ?? "";
  if (takesText(event) && (!isInQuestion(event) || !files.length)) return;
  if (!files.length && !text) return;
  event.preventDefault();
  if (files.length && (!text || names(text, files))) return files.forEach((file) => add(file));
  insert(text);
  if (!files.length) return;
  pasted = files;
  const attach = element("button", { type: "button", class: "quiet", "data-do": "attach-pasted" }, say("attach_pasted"));
  notice("hint", say("pasted"), attach);
});

act({
  "attach-pasted": () => {
    notice();
    for (const file of pasted) add(file);
    pasted = [];
    question().focus();
  },
  sample: (button) => {
    const address = `/sample/${encodeURIComponent(button.dataset.sample ?? "")}`;
    addFrom(() => fetch(address).then((response) => response.blob()), address);
    question().focus();
  },
});
