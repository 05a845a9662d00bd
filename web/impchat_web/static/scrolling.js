// Scrolling: stay at the end while an answer grows, unless the user has scrolled up.

import { act } from "./actions.js";
import { find, seek } from "./dom.js";

let atEnd = true;

export const toEnd = () => {
  const scroll = find("#scroll");
  scroll.scrollTop = seek(".welcome", scroll) ? 0 : scroll.scrollHeight;
  atEnd = true;
  document.body.classList.remove("scrolled-up");
};

export const watchScroll = () => {
  const scroll = find("#scroll");
  scroll.addEventListener("scroll", () => {
    atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
    document.body.classList.toggle("scrolled-up", !atEnd);
  });
  const grown = () => {
    if (atEnd) toEnd();
  };
  new MutationObserver(grown).observe(scroll, { childList: true, subtree: true, characterData: true });
  new ResizeObserver(grown).observe(scroll);
};

act({ latest: toEnd });
