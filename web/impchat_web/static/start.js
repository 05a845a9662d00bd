// Completes the page that Gradio has built, when the first state has arrived.

import { drawBanner } from "./banners.js";
import { devices, fillDevices } from "./devices.js";
import { element, find } from "./dom.js";
import { watchScroll } from "./scrolling.js";
import { watchBlank } from "./sending.js";
import { picker } from "./sources.js";
import { say, setWords } from "./words.js";

/** @param {import("./state.js").State} state with `words`, `model` and `language` */
export const start = ({ words = {}, model = "", language = "" }) => {
  setWords(words);
  find("#top .model").textContent = model; // it may have changed since the page was built
  document.documentElement.lang = language;
  drawBanner();
  find("[data-do=menu]").setAttribute("aria-label", say("menu"));
  const side = find("#side");
  side.setAttribute("role", "navigation");
  side.setAttribute("aria-label", say("menu"));
  for (const id of ["new", "attach", "send", "stop"]) find(`#${id}`).title = find(`#${id}`).textContent?.trim() ?? "";
  fillDevices();
  document.body.prepend(element("a", { id: "skip", href: "#question", "data-do": "skip" }, say("skip")));
  document.body.append(picker, devices, element("div", { id: "drop" }, element("span", {}, say("drop"))));
  const latest = { type: "button", id: "latest", "data-do": "latest", "aria-label": say("latest"), title: say("latest") };
  find("#composer").prepend(element("button", latest));
  watchBlank();
  watchScroll();
};
