// The running answer: reading it while it grows, stopping it.

import { inTurn, trigger, turnEnds } from "./gradio.js";
import { linesOf, post } from "./requests.js";
import { page } from "./state.js";
import { grow, have } from "./thread.js";

let reading = new AbortController();

/**
 * Draws this answer until it ends; the one followed so far is no longer read.
 *
 * @param {string} answer "": none is running
 */
export const follow = async (answer) => {
  if (answer === page.answer) return;
  reading.abort();
  page.answer = answer;
  document.body.classList.toggle("answering", Boolean(answer));
  if (!answer) return;
  const { conversation } = page;
  const { signal } = (reading = new AbortController());
  try {
    const response = await fetch(`/follow/${answer}`, { signal });
    if (response.ok) for await (const line of linesOf(response)) if (!signal.aborted) grow(line);
  } catch {
    // Aborted, or the connection is lost: then the event below fails too and reports it.
  }
  if (signal.aborted) return;
  inTurn(() => (signal.aborted ? turnEnds() : trigger("ended", { conversation, have: have() })));
};

export const stop = () => post(`/stop/${page.answer}`);
