// The entry. It loads the modules, and gives Gradio the functions that page.py names (`impchat.*`).

import { stop } from "./answers.js";
import { show } from "./draw.js";
import { bus } from "./gradio.js";
import { open } from "./navigation.js";
import "./pictures.js";
import { sending } from "./sending.js";
import "./shortcuts.js";
import { picker } from "./sources.js";
import { here } from "./state.js";

const choose = () => picker.click();

Object.assign(window, { impchat: { bus, choose, here, open, sending, show, stop } });
