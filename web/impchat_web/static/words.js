// The sentences of the page, in its language. They come from impchat/texts with the first state.

/** @type {Record<string, string>} */
let words = {};

/** @param {Record<string, string>} given by key: `web.js.KEY` */
export const setWords = (given) => {
  words = given;
};

/**
 * The sentence `web.js.KEY`, with its `{names}` replaced by values.
 *
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 */
export const say = (key, values = {}) =>
  (words[`web.js.${key}`] ?? "").replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
