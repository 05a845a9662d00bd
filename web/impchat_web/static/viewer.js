// A picture of the conversation, large: zoom, the next one, the boxes of an answer, a part to ask about, save, copy.

import { act } from "./actions.js";
import { all, element, find, parsed, seek } from "./dom.js";
import { frameOf, isLarge, movedFrame, moves, placeFrame, placeOf } from "./frames.js";
import { question } from "./question.js";
import { refusal } from "./requests.js";
import { addFrom } from "./uploads.js";
import { say } from "./words.js";

/** @typedef {import("./frames.js").Frame} Frame */

const ZOOM = 1.4; // by one press
const MOST = 12;
const PAN = 60; // CSS pixels, by an arrow key

const viewer = element("dialog", { id: "viewer" });

const view = { number: 0, scale: 1, x: 0, y: 0 };
/** @type {Frame | null} the part that is being chosen */
let part = null;
let choosing = false;

/** The pictures of the conversation, each as the button that opens it. */
const pictures = () => all("#thread [data-do=enlarge]");
const shown = () => find("img", viewer);
const pane = () => find(".pane", viewer);
const imageOf = () => pictures()[view.number]?.dataset.image ?? "";

const place = () => {
  view.scale = Math.min(MOST, Math.max(1, view.scale));
  const room = pane().getBoundingClientRect();
  const { offsetWidth, offsetHeight } = find(".sheet", viewer);
  const far = [(offsetWidth * view.scale - room.width) / 2, (offsetHeight * view.scale - room.height) / 2];
  const [across = 0, down = 0] = far.map((most) => Math.max(0, most));
  view.x = Math.min(across, Math.max(-across, view.x));
  view.y = Math.min(down, Math.max(-down, view.y));
  find(".sheet", viewer).style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  viewer.classList.toggle("near", view.scale > 1);
};

/**
 * Zooms, so that what is under a point stays there.
 *
 * @param {number} by
 * @param {{ clientX: number, clientY: number }} [at] the middle, if it is not given
 */
const zoom = (by, at) => {
  const room = pane().getBoundingClientRect();
  const x = (at?.clientX ?? room.left + room.width / 2) - room.left - room.width / 2;
  const y = (at?.clientY ?? room.top + room.height / 2) - room.top - room.height / 2;
  const before = view.scale;
  view.scale = Math.min(MOST, Math.max(1, before * by));
  view.x = x - ((x - view.x) * view.scale) / before;
  view.y = y - ((y - view.y) * view.scale) / before;
  place();
};

const whole = () => {
  Object.assign(view, { scale: 1, x: 0, y: 0 });
  place();
};

/** @param {Frame | null} frame */
const choose = (frame) => {
  part = frame;
  const drawn = find(".part", viewer);
  drawn.hidden = !frame;
  if (frame) placeFrame(drawn, frame);
  const add = /** @type {HTMLButtonElement} */ (find("[data-do=viewer-add]", viewer));
  add.disabled = !frame;
};

/** @param {boolean} on */
const setChoosing = (on) => {
  choosing = on;
  viewer.classList.toggle("choosing", on);
  find("[data-do=viewer-part]", viewer).setAttribute("aria-pressed", String(on));
  find("[data-do=viewer-add]", viewer).hidden = !on;
  find(".how", viewer).textContent = on ? say("pics_part_how") : "";
  choose(null);
  if (on) pane().focus();
};

/** @param {boolean} on */
const showBoxes = (on) => {
  viewer.classList.toggle("plain", !on);
  find("[data-do=viewer-boxes]", viewer).setAttribute("aria-pressed", String(on));
};

/** @param {number} number of the picture in the conversation */
const draw = (number) => {
  const opened = pictures()[number];
  if (!opened) return;
  Object.assign(view, { number, scale: 1, x: 0, y: 0 });
  const image = opened.dataset.image ?? "";
  const small = find("img", /** @type {HTMLElement} */ (opened.closest("figure") ?? opened));
  const large = element("img", { src: `/image/${image}`, alt: small.alt, draggable: "false" });
  large.addEventListener("load", () => {
    large.style.setProperty("--width", `${large.naturalWidth}px`);
    large.style.setProperty("--ratio", String(large.naturalWidth / large.naturalHeight));
  });
  const sheet = find(".sheet", viewer);
  sheet.replaceChildren(large, element("div", { class: "part", hidden: "" }));
  sheet.style.transform = "";
  // Its own boxes, or those of the latest answer about the same picture.
  const figure = opened.closest("figure") ?? all(`#thread figure[data-image="${image}"]`).at(-1);
  const boxes = figure && seek("svg", figure);
  if (boxes) large.after(...parsed(boxes.outerHTML));
  find("[data-do=viewer-boxes]", viewer).hidden = !boxes;
  const count = pictures().length;
  find(".place", viewer).textContent = count > 1 ? say("pics_place", { number: number + 1, count }) : "";
  for (const [name, at] of /** @type {const} */ ([["previous", number - 1], ["next", number + 1]])) {
    const button = /** @type {HTMLButtonElement} */ (find(`[data-do=viewer-${name}]`, viewer));
    button.hidden = count < 2;
    button.disabled = at < 0 || at >= count;
  }
  const save = /** @type {HTMLAnchorElement} */ (find(".save", viewer));
  save.href = `/image/${image}`;
  save.download = `impchat-${image.slice(0, 8)}`;
  viewer.classList.remove("near");
  showBoxes(true);
  setChoosing(false);
};

/**
 * @param {string} name of the action and of the sign
 * @param {string} words
 */
const tool = (name, words) =>
  element("button", { type: "button", class: `tool ${name}`, "data-do": `viewer-${name}`, "aria-label": words, title: words });

/** After the sentences of the page have arrived. */
const build = () => {
  if (viewer.isConnected) return;
  document.body.append(viewer);
  viewer.setAttribute("aria-label", say("picture"));
  const save = { class: "tool save", "aria-label": say("pics_save"), title: say("pics_save") };
  const hide = { type: "button", class: "tool close", "data-do": "viewer-close", "aria-label": say("hide"), title: say("hide") };
  viewer.append(
    element("div", { class: "pane", tabindex: "0", role: "group", "aria-label": say("picture") }, element("div", { class: "sheet" })),
    element("p", { class: "how", role: "status" }),
    element(
      "div",
      { class: "bar" },
      tool("previous", say("pics_previous")),
      element("span", { class: "place", role: "status" }),
      tool("next", say("pics_next")),
      tool("out", say("pics_zoom_out")),
      tool("in", say("pics_zoom_in")),
      tool("boxes", say("pics_boxes")),
      tool("part", say("pics_part")),
      element("button", { type: "button", class: "solid", "data-do": "viewer-add" }, say("pics_add_part")),
      element("a", save),
      tool("copy", say("pics_copy")),
    ),
    element("button", hide),
  );
  watch(pane());
};

/** @param {HTMLElement} surface */
const watch = (surface) => {
  /** @type {Map<number, PointerEvent>} */
  const down = new Map();
  /** @type {import("./frames.js").Point | null} */
  let from = null;
  let moved = false;
  const apart = () => {
    const [a, b] = [...down.values()];
    return a && b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 0;
  };
  const middle = () => {
    const all = [...down.values()];
    const sum = all.reduce((so, { clientX, clientY }) => ({ x: so.x + clientX, y: so.y + clientY }), { x: 0, y: 0 });
    return { clientX: sum.x / all.length, clientY: sum.y / all.length };
  };
  surface.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    surface.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
    moved = down.size > 1;
    from = choosing && down.size === 1 ? placeOf(event, shown()) : null;
  });
  surface.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    const [far, centre] = [apart(), middle()];
    down.set(event.pointerId, event);
    if (from) return choose(frameOf(from, placeOf(event, shown())));
    const now = middle();
    if (Math.hypot(event.clientX - last.clientX, event.clientY - last.clientY) > 1) moved = true;
    view.x += now.clientX - centre.clientX;
    view.y += now.clientY - centre.clientY;
    if (down.size === 2 && far) zoom(apart() / far, now);
    else place();
  });
  /** @param {PointerEvent} event */
  const up = (event) => {
    down.delete(event.pointerId);
    if (from && part && !isLarge(part)) choose(null);
    from = null;
  };
  surface.addEventListener("pointerup", up);
  surface.addEventListener("pointercancel", up);
  surface.addEventListener("click", (event) => {
    const { left, right, top, bottom } = shown().getBoundingClientRect();
    const inside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
    if (!inside && !moved && !choosing) viewer.close();
  });
  surface.addEventListener("dragstart", (event) => event.preventDefault()); // a double click may have selected something
  surface.addEventListener("dblclick", (event) => {
    if (choosing) return;
    if (view.scale > 1) whole();
    else zoom(3, event);
  });
  surface.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 300), event);
    },
    { passive: false },
  );
};

viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  const step = moves(key);
  if (choosing && step) choose(movedFrame(part ?? [0.3, 0.3, 0.7, 0.7], key, event.shiftKey));
  else if (choosing && key === "Enter" && event.target === pane()) addPart();
  else if (step && view.scale > 1) {
    view.x -= Math.sign(step[0]) * PAN;
    view.y -= Math.sign(step[1]) * PAN;
    place();
  } else if (step && step[0]) draw(view.number + Math.sign(step[0]));
  else if (key === "+" || key === "=") zoom(ZOOM);
  else if (key === "-") zoom(1 / ZOOM);
  else if (key === "0") whole();
  else return;
  event.preventDefault();
});
viewer.addEventListener("close", () => find(".sheet", viewer).replaceChildren()); // the next visit does not show this one
viewer.addEventListener("cancel", (event) => {
  if (!choosing) return;
  event.preventDefault(); // Escape first ends the choice of a part
  setChoosing(false);
});

const addPart = () => {
  if (!part) return;
  const [image, body] = [imageOf(), JSON.stringify([{ box: part }])];
  const source = async () => {
    const response = await fetch(`/pictures/part?image=${image}`, { method: "POST", body });
    if (!response.ok) throw Error(await refusal(response));
    return response.blob();
  };
  viewer.close();
  addFrom(source, `/thumbnail/${image}`);
  question().focus();
};

/** The shown picture as PNG, the only format that a clipboard takes everywhere. */
const asPng = async () => {
  const { naturalWidth: width, naturalHeight: height } = shown();
  const canvas = element("canvas", { width: String(width), height: String(height) });
  canvas.getContext("2d")?.drawImage(shown(), 0, 0);
  return new Promise((/** @type {(png: Blob) => void} */ done, fail) =>
    canvas.toBlob((png) => (png ? done(png) : fail(Error(say("pics_copy_failed"))))),
  );
};

const copyPicture = async () => {
  const line = find(".how", viewer);
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": asPng() })]);
    line.textContent = say("copied");
  } catch {
    line.textContent = say("pics_copy_failed");
  }
};

/** @param {HTMLElement} button */
export const enlarge = (button) => {
  build();
  viewer.showModal();
  draw(pictures().indexOf(button));
  pane().focus();
};

act({
  "viewer-close": () => viewer.close(),
  "viewer-previous": () => draw(view.number - 1),
  "viewer-next": () => draw(view.number + 1),
  "viewer-in": () => zoom(ZOOM),
  "viewer-out": () => zoom(1 / ZOOM),
  "viewer-boxes": () => showBoxes(viewer.classList.contains("plain")),
  "viewer-part": () => setChoosing(!choosing),
  "viewer-add": addPart,
  "viewer-copy": copyPicture,
});
