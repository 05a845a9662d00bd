// Pairing a phone: a code is shown while it is valid. The HTML comes from render_devices.py.

import { act } from "./actions.js";
import { copy } from "./copying.js";
import { element, find, seek } from "./dom.js";
import { announce, notice } from "./notices.js";
import { reason, refusal } from "./requests.js";
import { say } from "./words.js";

/** @typedef {{ html?: string, holders: string, state: string, code: string, seconds: number }} Pairing */

export const devices = element("dialog", { id: "devices", "aria-labelledby": "devices-title" });
const pairing = { code: "", until: 0, timer: 0, holders: "" };

/** After the sentences of the page have arrived. */
export const fillDevices = () =>
  devices.append(
    element(
      "header",
      {},
      element("h2", { id: "devices-title" }, say("devices")),
      element("button", { type: "button", class: "tool close", "data-do": "close-devices", "aria-label": say("hide") }),
    ),
    element("div", { id: "offer" }),
    element("div", { id: "holders" }),
  );

/**
 * @param {string} what the route: offer or state
 * @param {string} [body]
 * @returns {Promise<Pairing>}
 */
const askDevices = async (what, body) => {
  const response = await fetch(`/devices/${what}`, { method: "POST", body });
  if (!response.ok) throw Error(await refusal(response));
  return response.json();
};

/** @param {{ html?: string, holders: string }} drawn */
const drawDevices = ({ html, holders }) => {
  if (html !== undefined) find("#offer").innerHTML = html;
  if (holders !== pairing.holders) find("#holders").innerHTML = pairing.holders = holders; // keeps the focus
};

const tick = async () => {
  const seconds = Math.max(0, Math.ceil((pairing.until - Date.now()) / 1000));
  const line = seek("#offer .left");
  const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  if (line) line.textContent = say("left", { time });
  const reported = await askDevices("state", pairing.code);
  drawDevices(reported);
  if (reported.state === "open") return;
  clearInterval(pairing.timer);
  announce(find("#offer p").textContent ?? "");
};

const openDevices = async () => {
  clearInterval(pairing.timer);
  try {
    const offer = await askDevices("offer");
    drawDevices(offer);
    pairing.code = offer.code;
    pairing.until = Date.now() + 1000 * offer.seconds;
    if (!devices.open) devices.showModal();
    if (!offer.code) return;
    pairing.timer = setInterval(() => void tick().catch(() => clearInterval(pairing.timer)), 1000);
    await tick();
  } catch (error) {
    devices.close();
    notice("error", reason(error));
  }
};

devices.addEventListener("close", () => clearInterval(pairing.timer));
devices.addEventListener("click", (event) => event.target === devices && devices.close());

act({
  devices: openDevices,
  "close-devices": () => devices.close(),
  "copy-link": (button) => copy(button, button.dataset.link ?? ""),
  revoke: async (button) => {
    const holder = encodeURIComponent(button.dataset.holder ?? "");
    await fetch(`/devices/revoke?id=${holder}`, { method: "POST" }).catch(() => {});
    const { holders } = await askDevices("state", pairing.code);
    drawDevices({ holders });
  },
});
