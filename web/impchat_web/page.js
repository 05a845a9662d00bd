// What the page does in the browser beside Gradio: pictures by click, drop and paste, the address, menus, scrolling.
// In: Gradio's events (`impchat.*`, called from page.py) and a person's hands (`data-do`, set by render.py).
// It keeps the open conversation in the address and pictures in chips; everything else is the server's.
window.impchat = (() => {
  "use strict";

  const page = { conversation: "", answer: "", words: {}, seen: 0, visit: 0, trigger: null, gone: "", reopen: "" };
  const find = (selector, within = document) => within.querySelector(selector);
  const say = (key, values = {}) =>
    (page.words[`web.js.${key}`] ?? "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const question = () => find("#question textarea");
  const byHand = matchMedia("(pointer: fine)"); // no keyboard that jumps up by itself on a touch screen

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const type = (text) => {
    question().value = text;
    question().dispatchEvent(new Event("input", { bubbles: true }));
    question().focus();
  };

  // --- The address -------------------------------------------------------------------------------------------------

  const inAddress = () => new URLSearchParams(location.search).get("c") ?? "";

  const settle = (conversation, replace) => {
    page.conversation = conversation;
    if (inAddress() === conversation) return;
    const address = conversation ? `/?c=${encodeURIComponent(conversation)}` : "/";
    history[replace ? "replaceState" : "pushState"](null, "", address);
  };

  let wanted = 0; // counts what a person opened: of several things at once, the last is shown
  let asked = 0;
  const open = (conversation) => {
    saveDraft();
    const mine = ++wanted;
    inTurn(() => {
      if (mine < wanted) return turnEnds();
      asked = mine;
      page.trigger("navigate", { conversation });
    });
  };
  addEventListener("popstate", () => open(inAddress()));

  // --- Gradio's events, one at a time: of two at once, the first might be drawn last -----------------------------------

  const waiting = [];
  let taken = true; // by the page's loading
  const nextTurn = () => {
    if (taken || !waiting.length) return;
    taken = true;
    waiting.shift()();
  };
  const inTurn = (begin) => {
    waiting.push(begin);
    nextTurn();
  };
  const turnEnds = () => {
    taken = false;
    nextTurn();
  };
  const manage = (what) => inTurn(() => page.trigger("manage", what));

  // --- Notices -----------------------------------------------------------------------------------------------------

  const notice = (kind, text, undo) => {
    const place = find("#notice");
    place.replaceChildren();
    if (!text) return;
    const line = element("div", { class: `line ${kind}` }, element("span", { dir: "auto" }, text));
    if (undo) line.append(element("button", { type: "button", class: "quiet", "data-do": "undo", "data-conversation": undo }, say("undo")));
    line.append(element("button", { type: "button", class: "tool close", "data-do": "hide-notice", "aria-label": say("hide") }));
    place.append(line);
  };

  const announce = (text) => {
    find("#announce").textContent = text;
  };

  // --- Pictures of the question that is being composed -------------------------------------------------------------

  const uploads = new Set(); // pictures on their way to the server
  let lastUpload = Promise.resolve(); // one after the other: the first may have to make the conversation
  let failures = 0;

  const chips = () => [...document.querySelectorAll("#chips .chip")];

  const status = (text) => {
    let line = find("#chips .status");
    if (!text) return line?.remove();
    if (!line) {
      line = element("span", { class: "status", role: "status" });
      find("#chips").append(line);
    }
    if (line.textContent !== text) line.textContent = text;
  };

  const chip = (source, image = "") => {
    const made = element(
      "span",
      { class: "chip" },
      element("img", { src: source, alt: say("picture") }),
      element("button", { type: "button", class: "tool close", "data-do": "detach", "aria-label": say("detach"), title: say("detach") }),
    );
    made.dataset.image = image;
    find("#chips").insertBefore(made, find("#chips .status"));
    return made;
  };

  const dropChip = (made) => {
    made.remove();
    if (!chips().length) status("");
  };

  const clearChips = () => find("#chips").replaceChildren();

  const add = (file) => {
    notice();
    const made = chip(URL.createObjectURL(file));
    made.classList.add("reading");
    status(say("reading"));
    const arrived = lastUpload.then(() => upload(file, made, page.visit));
    uploads.add(arrived);
    lastUpload = arrived.finally(() => uploads.delete(arrived));
  };

  // Resolves when the server has the picture; what the engine says of it comes later.
  const upload = async (file, made, visit) => {
    if (!made.isConnected) return; // taken away before its turn came
    try {
      const response = await fetch(`/attach?c=${encodeURIComponent(page.conversation)}`, { method: "POST", body: file });
      if (!response.ok) throw Error((await response.json()).error);
      const lines = linesOf(response.body);
      const { value } = await lines.next();
      if (visit !== page.visit) return;
      settle(value.conversation, true);
      attached(made, value.image);
      watch(made, lines);
    } catch (error) {
      if (visit !== page.visit) return;
      failures += 1;
      dropChip(made);
      notice("error", error instanceof TypeError ? say("lost") : error.message);
    }
  };

  const attached = (made, image) => {
    if (!made.isConnected) return detach(image);
    if (chips().some((other) => other !== made && other.dataset.image === image)) return dropChip(made);
    made.dataset.image = image;
    const shown = find("img", made);
    URL.revokeObjectURL(shown.src);
    shown.src = `/thumbnail/${image}`; // the browser may not know the file's format, the server does
  };

  const watch = async (made, lines) => {
    try {
      for await (const line of lines) {
        if (!made.isConnected) continue;
        if (line.type === "reading") status(say("reading_percent", line));
        if (line.type === "ready" || line.type === "failed") {
          for (const each of chips()) each.classList.remove("reading");
          status(line.type === "ready" ? say("ready") : "");
          if (line.error) notice("error", line.error);
        }
      }
    } catch {
      // The server has gone; the next thing a person does tells so.
    }
    made.classList.remove("reading");
  };

  async function* linesOf(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) if (part) yield JSON.parse(part);
    }
  }

  const post = (path, body) =>
    fetch(path, { method: "POST", body, keepalive: true }).catch(() => notice("error", say("lost")));

  const detach = (image) =>
    post(`/detach?c=${encodeURIComponent(page.conversation)}&image=${encodeURIComponent(image)}`);

  const picker = element("input", { type: "file", accept: "image/*,.heic,.heif,.avif", multiple: "", id: "picker", "aria-hidden": "true", tabindex: "-1" });
  picker.addEventListener("change", () => {
    for (const file of picker.files) add(file);
    picker.value = "";
    question().focus();
  });

  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let over = 0; // how many elements the dragged file is above
  const hover = (depth) => {
    over = depth;
    document.body.classList.toggle("dropping", over > 0);
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && hover(over + 1));
  addEventListener("dragleave", (event) => carriesFiles(event) && hover(Math.max(0, over - 1)));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hover(0);
    for (const file of event.dataTransfer.files) add(file);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    for (const file of files) add(file);
  });

  // --- The answer that is being written ---------------------------------------------------------------------------------

  let reading = new AbortController();
  const follow = async (answer) => {
    if (answer === page.answer) return;
    reading.abort();
    page.answer = answer;
    document.body.classList.toggle("answering", Boolean(answer));
    find("#live").replaceChildren();
    if (!answer) return;
    const { conversation } = page;
    const { signal } = (reading = new AbortController());
    try {
      const response = await fetch(`/follow/${answer}`, { signal });
      if (response.ok) for await (const line of linesOf(response.body)) if (!signal.aborted) find("#live").innerHTML = line.html;
    } catch {
      // The page reads something else, or the server has gone: then the event below does not reach it either.
    }
    if (signal.aborted) return;
    inTurn(() => (signal.aborted ? turnEnds() : page.trigger("ended", { conversation })));
  };

  const stop = async () => {
    const response = await post(`/stop/${page.answer}`);
    if (response?.status === 422) notice("error", (await response.json()).error);
  };

  // --- The draft's text ---------------------------------------------------------------------------------------------

  let draftTimer = 0;
  const saveDraft = () => {
    if (!draftTimer) return;
    clearTimeout(draftTimer);
    draftTimer = 0;
    if (page.conversation) post(`/draft?c=${encodeURIComponent(page.conversation)}`, question().value);
  };
  addEventListener("input", (event) => {
    if (event.target !== question()) return;
    clearTimeout(draftTimer);
    draftTimer = setTimeout(saveDraft, 800);
  });
  // A reload brings the words back at once, also those that the server never saw; Gradio reloads when it lost its server.
  const kept = () => `impchat.kept.${page.conversation}`;
  addEventListener("pagehide", () => {
    sessionStorage.setItem(kept(), question()?.value ?? "");
    saveDraft();
  });
  const restore = () => {
    const text = sessionStorage.getItem(kept());
    sessionStorage.removeItem(kept());
    if (text && !question().value) type(text);
  };

  // --- Scrolling: stay at the end while the answer grows, unless the reader has gone up --------------------------------

  let atEnd = true;
  const toEnd = () => {
    const scroll = find("#scroll");
    scroll.scrollTop = find(".welcome", scroll) ? 0 : scroll.scrollHeight;
    atEnd = true;
    document.body.classList.remove("scrolled-up");
  };
  const watchScroll = () => {
    const scroll = find("#scroll");
    scroll.addEventListener("scroll", () => {
      atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
      document.body.classList.toggle("scrolled-up", !atEnd);
    });
    const grown = () => {
      const live = find("#live .answer");
      if (live && find(`#thread [data-message="${live.dataset.message}"]`)) live.remove(); // never both, not for a moment
      if (atEnd) toEnd();
    };
    new MutationObserver(grown).observe(scroll, { childList: true, subtree: true, characterData: true });
    new ResizeObserver(grown).observe(scroll);
  };

  // --- What buttons do ------------------------------------------------------------------------------------------------

  const menu = (shown) => {
    document.body.classList.toggle("menu", shown);
    find("[data-do=menu]").setAttribute("aria-expanded", String(shown));
    (shown ? find("#new") : find("[data-do=menu]")).focus();
  };

  const copy = async (button, text) => {
    await navigator.clipboard.writeText(text);
    const before = button.textContent;
    button.textContent = say("copied");
    announce(say("copied"));
    setTimeout(() => (button.textContent = before), 1500);
  };

  const viewer = element("dialog", { id: "viewer" });
  viewer.addEventListener("click", () => viewer.close());

  const rename = (entry) => {
    const link = find("a", entry);
    const field = element("input", { type: "text", value: link.textContent, "aria-label": say("rename") });
    let done = false;
    const finish = (save) => {
      if (done) return;
      done = true;
      field.replaceWith(link);
      const title = field.value.trim();
      if (save && title && title !== link.textContent) {
        manage({ do: "rename", conversation: entry.dataset.conversation, title });
      }
      link.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    field.addEventListener("blur", () => finish(true));
    link.replaceWith(field);
    field.select();
    field.focus();
  };

  // --- Pairing a phone: a code that is shown while it is good ---------------------------------------------------------

  const devices = element("dialog", { id: "devices", "aria-labelledby": "devices-title" });
  const pairing = { code: "", until: 0, timer: 0, holders: "" };

  const askDevices = async (what, body) => {
    const response = await fetch(`/devices/${what}`, { method: "POST", body });
    if (!response.ok) throw Error((await response.json()).error);
    return response.status === 204 ? {} : response.json();
  };

  const drawDevices = ({ html, holders }) => {
    if (html !== undefined) find("#offer").innerHTML = html;
    if (holders !== pairing.holders) find("#holders").innerHTML = pairing.holders = holders; // else the focus would go
  };

  const tick = async () => {
    const left = Math.max(0, Math.ceil((pairing.until - Date.now()) / 1000));
    const line = find("#offer .left");
    if (line) line.textContent = say("left", { time: `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` });
    const told = await askDevices("state", pairing.code);
    drawDevices(told);
    if (told.state === "open") return;
    clearInterval(pairing.timer);
    announce(find("#offer p").textContent);
  };

  const openDevices = async () => {
    clearInterval(pairing.timer);
    try {
      const told = await askDevices("offer");
      drawDevices(told);
      pairing.code = told.code;
      pairing.until = Date.now() + 1000 * told.seconds;
      if (!devices.open) devices.showModal();
      if (!told.code) return;
      pairing.timer = setInterval(() => tick().catch(() => clearInterval(pairing.timer)), 1000);
      await tick();
    } catch (error) {
      devices.close();
      notice("error", error instanceof TypeError ? say("lost") : error.message);
    }
  };
  devices.addEventListener("close", () => clearInterval(pairing.timer));
  devices.addEventListener("click", (event) => event.target === devices && devices.close());

  const actions = {
    devices: openDevices,
    "close-devices": () => devices.close(),
    "copy-link": (button) => copy(button, button.dataset.link),
    revoke: async (button) => {
      await askDevices(`revoke?id=${encodeURIComponent(button.dataset.holder)}`).catch(() => {});
      drawDevices(await askDevices("state", pairing.code).then(({ holders }) => ({ holders })));
    },
    open: (button) => open(button.closest("li").dataset.conversation),
    rename: (button) => rename(button.closest("li")),
    delete: (button) => manage({ do: "delete", conversation: button.closest("li").dataset.conversation }),
    undo: (button) => {
      page.reopen = page.gone === button.dataset.conversation ? page.gone : "";
      manage({ do: "restore", conversation: button.dataset.conversation });
    },
    menu: () => menu(!document.body.classList.contains("menu")),
    "hide-notice": () => notice(),
    "hide-banner": () => {
      localStorage.setItem("impchat.banner", "hidden");
      document.body.classList.add("no-banner");
    },
    "use-unverified": async (button) => {
      button.disabled = true;
      const response = await fetch(`/unverified?model=${encodeURIComponent(button.dataset.model)}`, { method: "POST" });
      if (response.ok) return location.reload();
      button.disabled = false;
      notice("error", (await response.json()).error);
    },
    "copy-answer": (button) => copy(button, find(".words", button.closest(".answer")).innerText),
    "copy-code": (button) => copy(button, find("pre", button.closest(".code")).innerText),
    latest: toEnd,
    enlarge: (button) => {
      const alt = find("img", button).alt;
      viewer.replaceChildren(
        element("img", { src: `/image/${button.dataset.image}`, alt }),
        element("button", { type: "button", class: "tool close", "aria-label": say("hide") }),
      );
      viewer.showModal();
    },
    detach: (button) => {
      const made = button.closest(".chip");
      if (made.dataset.image) detach(made.dataset.image);
      dropChip(made);
      question().focus();
    },
    sample: async (button) => {
      const response = await fetch(`/sample/${encodeURIComponent(button.dataset.sample)}`);
      add(await response.blob());
      question().focus();
    },
    ask: (button) => {
      type(button.textContent);
      if (chips().length) find("#send").click();
    },
  };

  addEventListener("click", (event) => {
    if (document.body.classList.contains("menu") && !event.target.closest("#side, [data-do=menu]")) menu(false);
    const button = event.target.closest("[data-do]");
    if (!button || event.ctrlKey || event.metaKey || event.shiftKey) return; // a link may open in a tab of its own
    event.preventDefault();
    actions[button.dataset.do](button);
  });

  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || viewer.open || devices.open) return;
    if (document.body.classList.contains("menu")) menu(false);
    else if (document.body.classList.contains("answering")) find("#stop").click();
  });

  // Enter that ends the writing of a Chinese word must not send the question.
  addEventListener("keypress", (event) => event.isComposing && event.stopPropagation(), true);

  // --- Gradio's side --------------------------------------------------------------------------------------------------

  const firstTime = (state) => {
    page.words = state.words;
    find("#top .model").textContent = state.model; // another one may answer since the page was built
    document.documentElement.lang = state.language;
    document.body.classList.toggle("no-banner", localStorage.getItem("impchat.banner") === "hidden");
    find("[data-do=menu]").setAttribute("aria-label", say("menu"));
    const side = find("#side");
    side.setAttribute("role", "navigation");
    side.setAttribute("aria-label", say("menu"));
    for (const id of ["new", "attach", "send", "stop"]) find(`#${id}`).title = find(`#${id}`).textContent.trim();
    devices.append(
      element("header", {}, element("h2", { id: "devices-title" }, say("devices")), element("button", { type: "button", class: "tool close", "data-do": "close-devices", "aria-label": say("hide") })),
      element("div", { id: "offer" }),
      element("div", { id: "holders" }),
    );
    document.body.append(picker, viewer, devices, element("div", { id: "drop" }, element("span", {}, say("drop"))));
    find("#composer").prepend(element("button", { type: "button", id: "latest", "data-do": "latest", "aria-label": say("latest"), title: say("latest") }));
    watchScroll();
  };

  // What came from the server with a new `state`; its `event` says what happened there.
  const draw = (state) => {
    page.seen = state.stamp;
    if (state.words) firstTime(state);
    const { event } = state;
    if (event === "cancelled") return;
    if (event === "opened") {
      page.visit += 1;
      if (asked === wanted) settle(state.conversation, Boolean(state.words));
      else page.conversation = state.conversation; // on the way to another one, which the address may name already
      clearChips();
      for (const image of state.pictures) chip(`/thumbnail/${image}`, image);
      if (document.body.classList.contains("menu")) menu(false);
      if (state.words) restore();
    }
    if (event === "sent") {
      clearTimeout(draftTimer);
      draftTimer = 0;
      settle(state.conversation, false);
      clearChips();
      announce(say("answering"));
    }
    if (event === "ended") {
      page.answer = null;
      announce(find("#thread .turn:last-child .words")?.innerText ?? "");
    }
    if (event !== "managed") follow(state.answer);
    if (event === "gone") {
      page.gone = state.conversation;
      open("");
    }
    if (event === "managed" && page.reopen) {
      open(page.reopen);
      page.reopen = "";
    }
    if (event === "opened" || event === "sent") toEnd();
    if (event !== "opened" || state.notice || !find("#notice .done")) // "Deleted: Undo" outlives the way to the next chat
      notice(state.notice?.kind, state.notice?.text, state.notice?.undo);
    find("#title").textContent = state.title;
    document.title = state.title ? `${state.title} · ImpChat` : "ImpChat";
    if (byHand.matches && event !== "managed") question().focus({ preventScroll: true });
  };

  // Behind every event of Gradio's, also where nothing came from the server.
  const show = (state) => {
    try {
      if (state.stamp > page.seen) draw(state);
      else notice("error", say("lost"));
    } finally {
      document.body.classList.add("ready");
      turnEnds();
    }
  };

  const here = ({ words, language, ...state }) => ({ ...state, conversation: page.conversation, answer: page.answer });

  const sending = async (state) => {
    const { visit } = page;
    const from = here(state);
    const before = failures;
    await Promise.all(uploads);
    await new Promise(inTurn);
    const to = visit === page.visit ? here(state) : from;
    return { ...to, cancelled: failures > before };
  };

  return {
    bus: (trigger) => (page.trigger = trigger),
    choose: () => picker.click(),
    here,
    open,
    sending,
    show,
    stop,
  };
})();
