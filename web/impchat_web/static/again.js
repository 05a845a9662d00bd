// Whether a click follows another one at the same place. After a removal the next chat or picture moves there, and a
// double click must not remove it too.

const DOUBLE_MS = 1500;
let deletion = { x: 0, y: 0, at: -DOUBLE_MS };

/**
 * Whether this click on a button that removes something repeats an earlier one.
 *
 * @param {MouseEvent} event
 */
export const again = ({ clientX: x, clientY: y, detail }) => {
  if (!detail) return false; // by a key
  const at = performance.now();
  const near = Math.hypot(x - deletion.x, y - deletion.y) < 10 && at - deletion.at < DOUBLE_MS;
  if (!near) deletion = { x, y, at };
  return near;
};

/** The removal is drawn only now: clicks from now on may still repeat it. */
export const removed = () => {
  if (deletion.at >= 0) deletion.at = performance.now();
};

addEventListener("pointermove", ({ clientX, clientY }) => {
  if (Math.hypot(clientX - deletion.x, clientY - deletion.y) >= 10) deletion.at = -DOUBLE_MS;
});
