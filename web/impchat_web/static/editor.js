// The editor of a picture of the draft: crop, rotate, mark, and what the model sees. The server makes the changed picture.

import { act } from "./actions.js";
import { element, find } from "./dom.js";
import { draft } from "./drafts.js";
import { LEAST, fraction, frameOf, isLarge, movedFrame, movedPoint, moves, placeOf } from "./frames.js";
import { notice } from "./notices.js";
import { question, write } from "./question.js";
import { reason, refusal } from "./requests.js";
import { replace } from "./uploads.js";
import { say } from "./words.js";

/** @typedef {import("./frames.js").Point} Point */
/** @typedef {import("./frames.js").Frame} Frame */
/** @typedef {{ rotate: number } | { crop: Frame }} Turn */
/** @typedef {{ box: Frame } | { arrow: [number, number, number, number] } | { line: Point[] }} Mark */
/** @typedef {{ turns: Turn[], marks: Mark[] }} Edits turns come before marks; marks are on the turned picture */

/**
 * The edits of a picture; a second visit goes on with them.
 *
 * @typedef {object} Work
 * @property {string} image the unchanged picture
 * @property {Blob} original the same, which the server forgets when it is replaced
 * @property {Edits} edits
 * @property {Edits[]} earlier for undo
 * @property {string} legend which was put before the question
 */

const COLOURS = ["#ff2b2b", "#ffe100", "#2f6bff", "#16d13c", "#ff5ad6", "#ff9000", "#1fe3ff", "#ffffff"]; // of impchat/images/marks.py
const LARGEST = 1600; // pixels of the longest side that is drawn here
const TURNS = 24; // with eight marks, no more than the server takes
const POINTS = 1999;
const NEAR = 0.004; // points of a line that are closer are left out
const TOOLS = /** @type {const} */ (["crop", "box", "arrow", "line"]);

/** @type {WeakMap<HTMLElement, Work>} by chip */
const works = new WeakMap();
const dialog = element("dialog", { id: "editor", "aria-labelledby": "editor-title" });

let chip = element("span");
/** @type {Work} */
let work = { image: "", original: new Blob(), edits: { turns: [], marks: [] }, earlier: [], legend: "" };
/** @type {typeof TOOLS[number]} */
let chosen = "crop";
/** @type {Mark | { crop: Frame } | null} what is being drawn */
let pending = null;
let picture = element("img");
let seen = false;

const stage = () => find(".stage", dialog);

/** @param {string} words */
const tell = (words) => {
  find(".how", dialog).textContent = words;
};

/** The picture with all turns, on a canvas. */
const turned = () => {
  const scale = Math.min(1, LARGEST / Math.max(picture.naturalWidth, picture.naturalHeight));
  let canvas = element("canvas");
  canvas.width = Math.max(1, Math.round(picture.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(picture.naturalHeight * scale));
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (const turn of work.edits.turns) {
    const next = element("canvas");
    const pen = next.getContext("2d");
    if ("crop" in turn) {
      const [left, top, right, bottom] = turn.crop;
      next.width = Math.max(1, Math.round((right - left) * canvas.width));
      next.height = Math.max(1, Math.round((bottom - top) * canvas.height));
      pen?.drawImage(canvas, -left * canvas.width, -top * canvas.height);
    } else {
      const side = turn.rotate % 2;
      next.width = side ? canvas.height : canvas.width;
      next.height = side ? canvas.width : canvas.height;
      pen?.translate(next.width / 2, next.height / 2);
      pen?.rotate((turn.rotate * Math.PI) / 2);
      pen?.drawImage(canvas, -canvas.width / 2, -canvas.height / 2);
    }
    canvas = next;
  }
  return canvas;
};

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
const svg = (name, attributes, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
};

/**
 * @param {Mark} mark
 * @param {number} number from 0
 * @param {number} width
 * @param {number} height
 */
const drawnMark = (mark, number, width, height) => {
  const colour = COLOURS[number] ?? "#ffffff";
  const line = Math.max(width, height) / 98;
  const group = svg("g", { class: "mark" });
  /** @type {Point} */
  let at = [0, 0];
  let path = "";
  if ("box" in mark) {
    const [left, top, right, bottom] = mark.box;
    at = [left * width, top * height];
    path = `M${left * width} ${top * height}H${right * width}V${bottom * height}H${left * width}Z`;
  } else if ("arrow" in mark) {
    const [x, y, toX, toY] = mark.arrow;
    at = [x * width, y * height];
    const angle = Math.atan2((toY - y) * height, (toX - x) * width);
    const wing = (/** @type {number} */ side) =>
      `${toX * width - 5 * line * Math.cos(angle + side)} ${toY * height - 5 * line * Math.sin(angle + side)}`;
    path = `M${at.join(" ")}L${toX * width} ${toY * height}M${wing(0.5)}L${toX * width} ${toY * height}L${wing(-0.5)}`;
  } else {
    const [[x, y] = [0, 0]] = mark.line;
    at = [x * width, y * height];
    path = `M${mark.line.map(([across, down]) => `${across * width} ${down * height}`).join("L")}`;
  }
  const how = { d: path, fill: "none", "stroke-linejoin": "round", "stroke-linecap": "round" };
  group.append(svg("path", { ...how, stroke: "#111", "stroke-width": 2 * line }), svg("path", { ...how, stroke: colour, "stroke-width": line }));
  const side = 6 * line;
  const x = Math.min(width - side, Math.max(0, at[0] - side / 2));
  const y = Math.min(height - side, Math.max(0, at[1] - side / 2));
  group.append(
    svg("rect", { x, y, width: side, height: side, fill: colour, stroke: "#111", "stroke-width": line / 2 }),
    svg("text", { x: x + side / 2, y: y + side * 0.78, "font-size": side * 0.8, "text-anchor": "middle", fill: "#111" }, String(number + 1)),
  );
  return group;
};

const drawMarks = () => {
  const canvas = find("canvas", stage());
  const { width, height } = canvas;
  const layer = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  const marks = pending && !("crop" in pending) ? [...work.edits.marks, pending] : work.edits.marks;
  for (const [number, mark] of marks.entries()) layer.append(drawnMark(mark, number, width, height));
  if (pending && "crop" in pending) {
    const [left, top, right, bottom] = pending.crop;
    const hole = `M0 0H${width}V${height}H0ZM${left * width} ${top * height}V${bottom * height}H${right * width}V${top * height}Z`;
    layer.append(svg("path", { d: hole, class: "shade" }));
  }
  stage().querySelector("svg")?.remove();
  stage().append(layer);
};

const redraw = () => {
  const canvas = turned();
  canvas.style.setProperty("--ratio", String(canvas.width / canvas.height));
  stage().replaceChildren(canvas);
  drawMarks();
  const undo = /** @type {HTMLButtonElement} */ (find("[data-do=edit-undo]", dialog));
  undo.disabled = !work.earlier.length;
  for (const name of TOOLS) find(`[data-tool=${name}]`, dialog).setAttribute("aria-pressed", String(name === chosen));
  dialog.classList.toggle("seeing", seen);
  find("[data-do=edit-seen]", dialog).setAttribute("aria-pressed", String(seen));
  const [across, down] = [canvas.width, canvas.height];
  stage().setAttribute("aria-label", say("pics_stage", { across, down, marks: work.edits.marks.length }));
};

/** @param {Edits} edits */
const change = (edits) => {
  work.earlier.push(work.edits);
  work.edits = edits;
  pending = null;
  redraw();
  tell("");
  if (seen) void see();
};

/**
 * The marks after a turn of the picture. One that is outside it is gone.
 *
 * @param {(point: Point) => Point} where a point has come to
 */
const carried = (where) => {
  /** @type {Mark[]} */
  const marks = [];
  for (const mark of work.edits.marks) {
    const points = ("line" in mark ? mark.line : corners("box" in mark ? mark.box : mark.arrow)).map(where);
    const isOut = [0, 1].some((side) => points.every((point) => (point[side] ?? 0) <= 0) || points.every((point) => (point[side] ?? 0) >= 1));
    const within = points.map(([x, y]) => /** @type {Point} */ ([fraction(x), fraction(y)]));
    const [a = [0, 0], b = [0, 0]] = within;
    if (isOut) continue;
    if ("line" in mark) marks.push({ line: within });
    else if ("box" in mark) marks.push({ box: frameOf(a, b) });
    else marks.push({ arrow: [...a, ...b] });
  }
  return marks;
};

/**
 * @param {[number, number, number, number]} four
 * @returns {Point[]}
 */
const corners = ([a, b, c, d]) => [[a, b], [c, d]];

/** @param {1 | 3} quarters clockwise */
const rotate = (quarters) => {
  const { turns } = work.edits;
  const last = turns.at(-1);
  const marks = carried(([x, y]) => (quarters === 1 ? [1 - y, x] : [y, 1 - x]));
  if (last && "rotate" in last) {
    const sum = (last.rotate + quarters) % 4;
    change({ turns: [...turns.slice(0, -1), ...(sum ? [{ rotate: sum }] : [])], marks });
  } else if (turns.length < TURNS) change({ turns: [...turns, { rotate: quarters }], marks });
};

/** @param {Frame} crop */
const cropTo = (crop) => {
  const [left, top, right, bottom] = crop;
  if (work.edits.turns.length >= TURNS) return;
  const marks = carried(([x, y]) => [(x - left) / (right - left), (y - top) / (bottom - top)]);
  change({ turns: [...work.edits.turns, { crop }], marks });
};

const settle = () => {
  const done = pending;
  pending = null;
  if (!done) return;
  if ("crop" in done) {
    if (isLarge(done.crop)) return cropTo(done.crop);
  } else if (("box" in done && isLarge(done.box)) || ("arrow" in done && isLong(done.arrow)) || ("line" in done && done.line.length > 1))
    return change({ ...work.edits, marks: [...work.edits.marks, done] });
  drawMarks();
};

/** @param {[number, number, number, number]} arrow */
const isLong = ([x, y, toX, toY]) => Math.hypot(toX - x, toY - y) >= LEAST;

const isFull = () => {
  const full = chosen !== "crop" && work.edits.marks.length >= COLOURS.length;
  if (full) tell(say("pics_full", { limit: COLOURS.length }));
  return full;
};

/**
 * @param {Point} from
 * @param {Point} to
 */
const draw = (from, to) => {
  if (chosen === "crop") pending = { crop: frameOf(from, to) };
  else if (chosen === "box") pending = { box: frameOf(from, to) };
  else if (chosen === "arrow") pending = { arrow: [...from, ...to] };
  else {
    const line = pending && "line" in pending ? pending.line : [from];
    const [x, y] = line.at(-1) ?? from;
    if (Math.hypot(to[0] - x, to[1] - y) >= NEAR && line.length < POINTS) line.push(to);
    pending = { line };
  }
  drawMarks();
};

/** @param {HTMLElement} surface */
const watch = (surface) => {
  /** @type {Point | null} */
  let from = null;
  surface.addEventListener("pointerdown", (event) => {
    if (event.button || !event.isPrimary || seen || isFull()) return;
    surface.setPointerCapture(event.pointerId);
    pending = null;
    from = placeOf(event, find("canvas", surface));
  });
  surface.addEventListener("pointermove", (event) => from && event.isPrimary && draw(from, placeOf(event, find("canvas", surface))));
  surface.addEventListener("pointerup", () => {
    if (from) settle();
    from = null;
  });
  surface.addEventListener("pointercancel", () => {
    from = pending = null;
    drawMarks();
  });
  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || seen) return;
    if (moves(event.key) && !isFull()) byKey(event.key, event.shiftKey);
    else if (event.key === "Enter" && pending) settle();
    else return;
    event.preventDefault();
  });
};

/**
 * @param {string} key an arrow key
 * @param {boolean} shift
 */
const byKey = (key, shift) => {
  /** @type {Frame} */
  const middle = [0.25, 0.25, 0.75, 0.75];
  if (chosen === "crop") pending = { crop: pending && "crop" in pending ? movedFrame(pending.crop, key, shift) : middle };
  else if (chosen === "box") pending = { box: pending && "box" in pending ? movedFrame(pending.box, key, shift) : middle };
  else if (chosen === "arrow") {
    const [x, y, toX, toY] = pending && "arrow" in pending ? pending.arrow : middle;
    const from = shift ? /** @type {Point} */ ([x, y]) : movedPoint([x, y], key);
    pending = { arrow: [...from, ...movedPoint([toX, toY], key)] };
  } else {
    const line = pending && "line" in pending ? pending.line : [/** @type {Point} */ ([0.5, 0.5])];
    const last = line.at(-1) ?? [0.5, 0.5];
    pending = { line: [...line, movedPoint(last, key)].slice(0, POINTS) };
  }
  drawMarks();
  tell(say("pics_keys"));
};

const image = () => chip.dataset.image ?? "";

/** The edits, with the unchanged picture if the server no longer has it. */
const body = () => {
  const edits = JSON.stringify([...work.edits.turns, ...work.edits.marks]);
  return new Blob(image() === work.image ? [edits] : [edits, "\n", work.original]);
};

/** Shows the picture as the model gets it. */
const see = async () => {
  const mine = work.edits;
  try {
    const response = await fetch(`/pictures/seen?image=${image()}`, { method: "POST", body: body() });
    if (!response.ok) throw Error(await refusal(response));
    if (!seen || mine !== work.edits) return;
    if (response.status === 204) return tell(say("pics_seen_unknown"));
    const shown = find(".input", dialog);
    const address = URL.createObjectURL(await response.blob());
    shown.addEventListener("load", () => {
      URL.revokeObjectURL(address);
      const { naturalWidth: side } = /** @type {HTMLImageElement} */ (shown);
      const lost = response.headers.get("x-small-print") === "lost";
      tell([say("pics_seen_says", { side }), lost ? say("pics_small_print") : ""].filter(Boolean).join(" "));
    }, { once: true });
    shown.setAttribute("src", address);
  } catch (error) {
    tell(reason(error));
  }
};

/** @param {boolean} on */
const setSeen = (on) => {
  seen = on;
  pending = null;
  redraw();
  tell("");
  if (on) void see();
};

const use = async () => {
  const button = /** @type {HTMLButtonElement} */ (find("[data-do=edit-use]", dialog));
  button.disabled = true;
  try {
    const legend = await replace(chip, body, draft);
    const words = question().value;
    const old = work.legend;
    const rest = old && words.includes(old) ? words.replace(old, "").trimStart() : words;
    work.legend = legend;
    write([legend, rest].filter(Boolean).join(" "));
    dialog.close();
    question().focus();
  } catch (error) {
    tell(reason(error));
  } finally {
    button.disabled = false;
  }
};

/**
 * @param {string} name of the sign
 * @param {string} words
 * @param {Record<string, string>} attributes
 */
const tool = (name, words, attributes) =>
  element("button", { type: "button", class: `tool ${name}`, "aria-label": words, title: words, ...attributes });

const build = () => {
  const stageAttributes = { class: "stage", tabindex: "0", role: "group", "aria-describedby": "editor-how" };
  dialog.append(
    element(
      "header",
      {},
      element("h2", { id: "editor-title" }, say("pics_edit")),
      element("button", { type: "button", class: "tool close", "data-do": "edit-close", "aria-label": say("hide"), title: say("hide") }),
    ),
    element("div", { class: "pane" }, element("div", stageAttributes), element("img", { class: "input", alt: say("pics_seen") })),
    element("p", { class: "how", id: "editor-how", role: "status" }),
    element(
      "div",
      { class: "bar" },
      tool("crop", say("pics_crop"), { "data-do": "edit-tool", "data-tool": "crop" }),
      tool("frame", say("pics_box"), { "data-do": "edit-tool", "data-tool": "box" }),
      tool("arrow", say("pics_arrow"), { "data-do": "edit-tool", "data-tool": "arrow" }),
      tool("stroke", say("pics_line"), { "data-do": "edit-tool", "data-tool": "line" }),
      tool("left", say("pics_left"), { "data-do": "edit-left" }),
      tool("right", say("pics_right"), { "data-do": "edit-right" }),
      tool("undo", say("undo"), { "data-do": "edit-undo" }),
      tool("eye", say("pics_seen"), { "data-do": "edit-seen" }),
      element("button", { type: "button", class: "solid", "data-do": "edit-use" }, say("pics_use")),
    ),
  );
  document.body.append(dialog);
  watch(stage());
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    undo();
  });
};

const undo = () => {
  const before = work.earlier.pop();
  if (!before) return;
  work.edits = before;
  pending = null;
  redraw();
  if (seen) void see();
};

/**
 * Opens the editor for a picture of the draft. Closing it keeps the edits for the next visit.
 *
 * @param {HTMLElement} of its chip
 */
export const edit = async (of) => {
  if (!dialog.isConnected) build();
  chip = of;
  const known = works.get(of);
  try {
    if (known) work = known;
    else {
      const response = await fetch(`/image/${image()}`);
      if (!response.ok) throw Error(await refusal(response));
      work = { image: image(), original: await response.blob(), edits: { turns: [], marks: [] }, earlier: [], legend: "" };
    }
    const address = URL.createObjectURL(work.original);
    picture = element("img", { src: address });
    await picture.decode().finally(() => URL.revokeObjectURL(address));
  } catch (error) {
    return notice("error", reason(error));
  }
  works.set(of, work);
  chosen = "crop";
  seen = false;
  pending = null;
  if (!dialog.open) dialog.showModal();
  redraw();
  tell(say("pics_crop_how"));
  stage().focus();
};

act({
  "edit-close": () => dialog.close(),
  "edit-tool": (button) => {
    chosen = TOOLS.find((name) => name === button.dataset.tool) ?? "crop";
    if (seen) setSeen(false);
    pending = null;
    redraw();
    tell(chosen === "crop" ? say("pics_crop_how") : say("pics_mark_how"));
    stage().focus();
  },
  "edit-left": () => rotate(3),
  "edit-right": () => rotate(1),
  "edit-undo": undo,
  "edit-seen": () => setSeen(!seen),
  "edit-use": use,
});
