// Frames on a picture, drawn by pointer or keys. Coordinates are fractions, 0 to 1, of its width and height.

/** @typedef {[number, number]} Point */
/** @typedef {[number, number, number, number]} Frame left, top, right, bottom */

export const LEAST = 0.02; // of a side: a shorter drag is a click
const STEP = 0.02; // by one press of a key

/** @param {number} value */
export const fraction = (value) => Math.round(10_000 * Math.min(1, Math.max(0, value))) / 10_000;

/**
 * The place of a pointer on an element.
 *
 * @param {PointerEvent} event
 * @param {Element} surface
 * @returns {Point}
 */
export const placeOf = ({ clientX, clientY }, surface) => {
  const { left, top, width, height } = surface.getBoundingClientRect();
  return [fraction((clientX - left) / width), fraction((clientY - top) / height)];
};

/**
 * @param {Point} a
 * @param {Point} b
 * @returns {Frame}
 */
export const frameOf = ([x, y], [toX, toY]) => [Math.min(x, toX), Math.min(y, toY), Math.max(x, toX), Math.max(y, toY)];

/** @param {Frame} frame */
export const isLarge = ([left, top, right, bottom]) => right - left >= LEAST && bottom - top >= LEAST;

/** @type {Record<string, Point>} */
const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

/** @param {string} key of a keyboard event */
export const moves = (key) => KEYS[key];

/**
 * The point after an arrow key was pressed.
 *
 * @param {Point} point
 * @param {string} key
 * @returns {Point}
 */
export const movedPoint = ([x, y], key) => {
  const [across, down] = KEYS[key] ?? [0, 0];
  return [fraction(x + across), fraction(y + down)];
};

/**
 * The frame after an arrow key was pressed: moved, or with Shift, resized at its right and bottom edges.
 *
 * @param {Frame} frame
 * @param {string} key
 * @param {boolean} shift
 * @returns {Frame}
 */
export const movedFrame = ([left, top, right, bottom], key, shift) => {
  const [across, down] = KEYS[key] ?? [0, 0];
  if (shift)
    return [left, top, Math.max(left + LEAST, fraction(right + across)), Math.max(top + LEAST, fraction(bottom + down))];
  const dx = Math.min(1 - right, Math.max(-left, across));
  const dy = Math.min(1 - bottom, Math.max(-top, down));
  return [fraction(left + dx), fraction(top + dy), fraction(right + dx), fraction(bottom + dy)];
};

/**
 * Puts an element where the frame is, within an element that has the picture's size.
 *
 * @param {HTMLElement} shown
 * @param {Frame} frame
 */
export const placeFrame = ({ style }, [left, top, right, bottom]) => {
  style.left = `${100 * left}%`;
  style.top = `${100 * top}%`;
  style.width = `${100 * (right - left)}%`;
  style.height = `${100 * (bottom - top)}%`;
};
