// Requests to our own routes, and responses that arrive line by line.

import { notice } from "./notices.js";
import { say } from "./words.js";

/**
 * The error sentence of a refused request.
 *
 * @param {Response} response
 * @returns {Promise<string>}
 */
export const refusal = (response) => response.json().then(({ error }) => error, () => say("lost"));

/**
 * The sentence of an error that a request has thrown.
 *
 * @param {unknown} error
 */
export const reason = (error) => (error instanceof Error && !(error instanceof TypeError) ? error.message : say("lost"));

/**
 * Whether the server accepted it; otherwise a notice is shown.
 *
 * @param {string} path
 * @param {string} [body]
 * @param {RequestInit} [options]
 */
export const post = async (path, body, options = {}) => {
  try {
    const response = await fetch(path, { method: "POST", body, ...options });
    if (!response.ok) notice("error", await refusal(response));
    return response.ok;
  } catch {
    notice("error", say("lost"));
    return false;
  }
};

/**
 * The JSON values of a response, one per line, as they arrive.
 *
 * @param {Response} response
 */
export async function* linesOf({ body }) {
  if (!body) return;
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}
