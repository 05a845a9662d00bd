// Finds and makes elements.

/**
 * The first element that matches, of a part that the page always has.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @overload
 * @param {K} selector
 * @param {ParentNode} [within]
 * @returns {HTMLElementTagNameMap[K]}
 */
/**
 * @overload
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {HTMLElement}
 */
/**
 * @param {string} selector
 * @param {ParentNode} [within]
 */
export function find(selector, within = document) {
  const found = seek(selector, within);
  if (!found) throw Error(`The page has no ${selector}.`);
  return found;
}

/**
 * The first element that matches, if there is one.
 *
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {HTMLElement | null}
 */
export const seek = (selector, within = document) => within.querySelector(selector);

/**
 * @param {string} selector
 * @param {ParentNode} [within]
 * @returns {HTMLElement[]}
 */
export const all = (selector, within = document) => [...within.querySelectorAll(selector)].map((each) => /** @type {HTMLElement} */ (each));

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

/**
 * The nodes of HTML that the server has rendered.
 *
 * @param {string} html
 */
export const parsed = (html) => {
  const template = element("template");
  template.innerHTML = html;
  return [...template.content.childNodes];
};

/**
 * The element of an event; null if it is the document or the window.
 *
 * @param {Event} event
 */
export const targetOf = ({ target }) => (target instanceof Element ? target : null);

/** @param {Event} event */
export const takesText = (event) => Boolean(targetOf(event)?.matches("textarea, input"));

export const byHand = matchMedia("(pointer: fine)"); // on a touch screen, focusing would open the keyboard
