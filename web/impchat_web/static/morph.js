// Changes nodes into others. Only what differs is replaced, which keeps selection, scroll positions and focus.

/** @param {Node} node */
const keyOf = (node) => {
  const data = node instanceof HTMLElement ? node.dataset : {};
  return data.message ?? data.conversation ?? data.group;
};

/**
 * Makes the children of `parent`, starting at index `from`, equal to the nodes `wanted`. A node with a key is kept, so
 * that a click on it is not lost.
 *
 * @param {Node} parent
 * @param {ChildNode[]} wanted
 * @param {number} [from]
 */
export const morph = (parent, wanted, from = 0) => {
  const keys = new Set(wanted.map(keyOf));
  for (const now of [...parent.childNodes].slice(from)) if (keyOf(now) && !keys.has(keyOf(now))) now.remove();
  for (const [number, next] of wanted.entries()) {
    let now = parent.childNodes[from + number];
    if (now && keyOf(now) !== keyOf(next)) {
      const there = keyOf(next) && [...parent.childNodes].slice(from + number).find((node) => keyOf(node) === keyOf(next));
      parent.insertBefore(there || next, now);
      now = there || next;
    }
    if (!now) parent.appendChild(next);
    else if (!now.isEqualNode(next)) change(now, next);
  }
  while (parent.childNodes.length > from + wanted.length) parent.lastChild?.remove();
};

/**
 * @param {ChildNode} now
 * @param {ChildNode} next
 */
const change = (now, next) => {
  if (now.nodeName !== next.nodeName || keyOf(now) !== keyOf(next)) return now.replaceWith(next);
  if (now instanceof Text && next instanceof Text) {
    let same = 0;
    while (same < now.length && now.data[same] === next.data[same]) same += 1;
    return now.replaceData(same, now.length - same, next.data.slice(same)); // keeps a selection in the unchanged part
  }
  if (!(now instanceof Element && next instanceof Element)) return now.replaceWith(next);
  for (const { name } of [...now.attributes]) if (!next.hasAttribute(name) && name !== "open") now.removeAttribute(name);
  for (const { name, value } of next.attributes) now.setAttribute(name, value);
  morph(now, [...next.childNodes]);
};
