// Browser side of the page, in addition to Gradio: adding pictures, the address, the draft, drawing, menus, scrolling.
// In: Gradio's events (`impchat.*`, called from page.py) and user actions (`data-do`, set by render.py).
// It keeps the open conversation in the address and the draft's pictures in chips; the server owns everything else.
window.impchat = (() => {
  "use strict";

  const inAddress = () => new URLSearchParams(location.search).get("c") ?? "";
  const page = { conversation: inAddress(), answer: "", words: {}, seen: 0, trigger: null, gone: "", reopen: "", listed: 0 };
  const find = (selector, within = document) => within.querySelector(selector);
  const say = (key, values = {}) =>
    (page.words[`web.js.${key}`] ?? "").replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  const question = () => find("#question textarea");
  const byHand = matchMedia("(pointer: fine)"); // on a touch screen, focusing would open the keyboard

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const write = (text) => {
    if (question().value === text) return;
    question().value = text;
    question().dispatchEvent(new Event("input", { bubbles: true })); // Gradio reads the value at this event
  };
  const type = (text) => {
    write(text);
    question().focus();
  };

  // --- The address -------------------------------------------------------------------------------------------------

  const settle = (conversation, replace) => {
    page.conversation = conversation;
    if (inAddress() === conversation) return;
    const address = conversation ? `/?c=${encodeURIComponent(conversation)}` : "/";
    history[replace ? "replaceState" : "pushState"](null, "", address);
  };

  let wanted = 0; // number of the latest navigation: of several in a row, only the last is shown
  let asked = 0;
  const open = (conversation) => {
    const { saved } = leaveDraft(); // text typed from now on belongs to the conversation that opens
    const mine = ++wanted;
    inTurn(async () => {
      await saved;
      if (mine < wanted) return turnEnds();
      asked = mine;
      page.trigger("navigate", { conversation });
    });
  };
  addEventListener("popstate", () => open(inAddress()));

  // --- Gradio's events, one at a time: responses to concurrent events could be drawn in the wrong order --------------

  const waiting = [];
  let busy = true; // the page load is the first event
  const nextTurn = () => {
    if (busy || !waiting.length) return;
    busy = true;
    waiting.shift()();
  };
  const inTurn = (begin) => {
    waiting.push(begin);
    nextTurn();
  };
  const turnEnds = () => {
    busy = false;
    nextTurn();
  };
  const manage = (what) => inTurn(() => page.trigger("manage", what));

  // --- Notices -----------------------------------------------------------------------------------------------------

  const notice = (kind, text, action) => {
    const place = find("#notice");
    place.replaceChildren();
    if (!text) return;
    const line = element("div", { class: `line ${kind}` }, element("span", { dir: "auto" }, text));
    if (action) line.append(action);
    line.append(element("button", { type: "button", class: "tool close", "data-do": "hide-notice", "aria-label": say("hide") }));
    place.append(line);
  };

  const undoButton = (conversation) =>
    element("button", { type: "button", class: "quiet", "data-do": "undo", "data-conversation": conversation }, say("undo"));

  // The error sentence of a refused request.
  const refusal = (response) => response.json().then(({ error }) => error, () => say("lost"));

  const announce = (text) => {
    find("#announce").textContent = text;
  };

  // --- Pictures of the draft -----------------------------------------------------------------------------------------

  const uploads = new Set(); // uploads that the server has not confirmed
  let lastUpload = Promise.resolve(); // one at a time: the first may have to create the conversation

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
    place(made);
    return made;
  };

  const place = (made) => find("#chips").insertBefore(made, find("#chips .status"));

  // The questions of the empty page, and those that fit the latest picture.
  const suggest = () => {
    document.querySelectorAll(".asks .fits").forEach((button) => button.remove());
    for (const ask of chips().at(-1)?.asks ?? [])
      find(".asks")?.append(element("button", { type: "button", class: "ask fits", "data-do": "ask" }, ask));
  };

  const dropChip = (made) => {
    made.remove();
    suggest();
    if (!chips().length) status("");
  };

  const clearChips = () => find("#chips").replaceChildren();
  const drawChips = (images) => {
    if (chips().map(({ dataset }) => dataset.image).join() === images.join()) return;
    clearChips();
    for (const image of images) chip(`/thumbnail/${image}`, image);
  };

  // `source`: a file, or a function that fetches one.
  const add = (source, shown = URL.createObjectURL(source)) => {
    if (left) return whenThere(() => add(source, shown));
    notice();
    const made = chip(shown);
    const mine = draft; // the upload belongs to this draft even if another conversation opens meanwhile
    made.classList.add("reading");
    status(say("reading"));
    const arrived = lastUpload.then(() => upload(source, made, mine));
    uploads.add(arrived);
    lastUpload = arrived.finally(() => uploads.delete(arrived));
  };

  // Resolves when the server has the picture; the engine's progress follows later.
  const upload = async (source, made, mine) => {
    if (made.dataset.detached) return; // removed before its upload started
    let file = source;
    try {
      if (source instanceof Function) file = await source();
      const response = await fetch(`/attach?c=${encodeURIComponent(mine.conversation)}`, { method: "POST", body: file });
      if (!response.ok) throw Error(await refusal(response));
      const lines = linesOf(response.body);
      const { value } = await lines.next();
      if (!mine.conversation) begin(mine, value.conversation);
      if (made.dataset.detached) return detach(value.image, mine.conversation);
      if (mine.conversation !== draft.conversation) return;
      if (!made.isConnected) place(made); // another conversation was shown meanwhile
      made.asks = value.asks;
      attached(made, value.image);
      suggest();
      watch(made, lines);
    } catch (error) {
      mine.failures += 1;
      dropChip(made);
      const readable = !(file instanceof Blob) || (await file.slice(0, 1).arrayBuffer().then(() => true, () => false));
      const { name } = file;
      const which = uploads.size > 1 && name ? `${name}: ` : "";
      const reason = error instanceof TypeError ? say("lost") : error.message;
      notice("error", readable ? which + reason : say("unreadable", { name }));
    }
  };

  // A picture has created the conversation: the text typed before belongs to it too.
  const begin = (mine, conversation) => {
    mine.conversation = conversation;
    if (mine === draft) {
      settle(conversation, true);
      draftChanged();
    } else if (draft.conversation && stored("")) saveWords(conversation, stored(""));
    else return;
    forget("");
  };

  const attached = (made, image) => {
    if (chips().some((other) => other !== made && other.dataset.image === image)) return dropChip(made);
    made.dataset.image = image;
    const shown = find("img", made);
    URL.revokeObjectURL(shown.src); // no effect for a sample
    shown.src = `/thumbnail/${image}`; // the server can show formats that the browser cannot
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
      // The connection to the server is lost; the user's next action reports it.
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

  // Whether the server accepted it; otherwise a notice is shown.
  const post = async (path, body, options = {}) => {
    try {
      const response = await fetch(path, { method: "POST", body, ...options });
      if (!response.ok) notice("error", await refusal(response));
      return response.ok;
    } catch {
      notice("error", say("lost"));
      return false;
    }
  };

  const detach = (image, conversation = draft.conversation) =>
    post(`/detach?c=${encodeURIComponent(conversation)}&image=${encodeURIComponent(image)}`);

  const picker = element("input", { type: "file", accept: "image/*,.heic,.heif,.avif", multiple: "", id: "picker", "aria-hidden": "true", tabindex: "-1" });
  picker.addEventListener("change", () => {
    for (const file of picker.files) add(file);
    picker.value = "";
    question().focus();
  });

  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const takesText = ({ target }) => target.matches?.("textarea, input");
  const insert = (text) => {
    question().focus();
    document.execCommand("insertText", false, text); // like typed text, so that it can be undone
  };
  let over = 0; // nesting depth of the elements under the dragged file
  const hover = (depth) => {
    over = depth;
    document.body.classList.toggle("dropping", over > 0);
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && hover(over + 1));
  addEventListener("dragleave", (event) => carriesFiles(event) && hover(Math.max(0, over - 1)));
  addEventListener("dragover", (event) => {
    if (carriesFiles(event) || !takesText(event)) event.preventDefault(); // otherwise a dropped link would replace the page
  });
  addEventListener("drop", (event) => {
    if (!carriesFiles(event) && takesText(event)) return;
    event.preventDefault();
    hover(0);
    const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
    const entries = items.map((item) => item.webkitGetAsEntry?.());
    const files = items.map((item) => item.getAsFile());
    const text = event.dataTransfer.getData("text/plain").trim();
    const isPicture = /<img\b/i.test(event.dataTransfer.getData("text/html")); // of another page, without its file
    whenThere(() => {
      for (const [number, file] of files.entries()) if (file && !entries[number]?.isDirectory) add(file);
      const folder = entries.find((entry) => entry?.isDirectory);
      if (folder) notice("error", say("folder", { name: folder.name }));
      else if (!files.length && isPicture) notice("error", say("elsewhere"));
      else if (!files.length && text) insert(text);
    });
  });

  // Table cells are copied as text and as a picture: the text is pasted and the picture offered. A web page's image may
  // be copied with its address, a file with its name.
  const isName = (line, { name }) => line === name || line.endsWith(`/${name}`) || line.endsWith(`\\${name}`);
  const names = (text, files) =>
    text.split(/\s*\n/).every((line) => /^(https?|file):\S+$/.test(line) || files.some((file) => isName(line, file)));
  let pasted = [];
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    const text = event.clipboardData?.getData("text/plain").trimEnd() ?? "";
    if (takesText(event) && (event.target !== question() || !files.length)) return;
    if (!files.length && !text) return;
    event.preventDefault();
    if (files.length && (!text || names(text, files))) return files.forEach((file) => add(file));
    insert(text);
    if (!files.length) return;
    pasted = files;
    const attach = element("button", { type: "button", class: "quiet", "data-do": "attach-pasted" }, say("attach_pasted"));
    notice("hint", say("pasted"), attach);
  });

  // --- The thread: only changed nodes are replaced, which keeps selection, scroll positions and focus ----------------

  const turns = () => find("#thread .turns");
  const parsed = (html) => {
    const template = element("template");
    template.innerHTML = html;
    return [...template.content.childNodes];
  };

  const keyOf = ({ dataset }) => dataset?.message ?? dataset?.conversation ?? dataset?.group;

  // Makes the children of `parent`, starting at index `from`, equal to the nodes `wanted`. A node with a key is kept, so
  // that a click on it is not lost.
  const morph = (parent, wanted, from = 0) => {
    const keys = new Set(wanted.map(keyOf));
    for (const now of [...parent.childNodes].slice(from)) if (keyOf(now) && !keys.has(keyOf(now))) now.remove();
    for (const [number, next] of wanted.entries()) {
      let now = parent.childNodes[from + number];
      if (now && keyOf(now) !== keyOf(next)) {
        const there = keyOf(next) && [...parent.childNodes].slice(from + number).find((node) => keyOf(node) === keyOf(next));
        parent.insertBefore(there || next, now);
        now = there || next;
      }
      if (!now) parent.append(next);
      else if (!now.isEqualNode(next)) change(now, next);
    }
    while (parent.childNodes.length > from + wanted.length) parent.lastChild.remove();
  };

  const change = (now, next) => {
    if (now.nodeName !== next.nodeName || keyOf(now) !== keyOf(next)) return now.replaceWith(next);
    if (now.nodeType === Node.TEXT_NODE) {
      let same = 0;
      while (same < now.length && now.data[same] === next.data[same]) same += 1;
      return now.replaceData(same, now.length - same, next.data.slice(same)); // keeps a selection in the unchanged part
    }
    for (const { name } of [...now.attributes]) if (!next.hasAttribute(name) && name !== "open") now.removeAttribute(name);
    for (const { name, value } of next.attributes) now.setAttribute(name, value);
    morph(now, [...next.childNodes]);
  };

  const numberOf = (message) => [...turns().children].findIndex((turn) => turn.dataset.message === message);
  const drawThread = ({ after, html }) => morph(turns(), parsed(html), after ? numberOf(after) + 1 : 0);

  // The last complete message on the page.
  const have = () => [...turns().querySelectorAll(":scope > .turn:not(#live)")].at(-1)?.dataset.message ?? "";

  // --- The list of chats: one tab stop, arrow keys move within it ----------------------------------------------------

  let listWaits = null; // HTML to draw after a title has been edited
  const drawList = (html) => {
    listWaits = find("#history input") ? html : null;
    if (listWaits !== null) return;
    const links = () => [...document.querySelectorAll("#history li a")];
    const at = links().indexOf(find("#history li:focus-within a"));
    morph(find("#history .list"), parsed(html));
    if (at >= 0 && document.activeElement === document.body) (links()[at] ?? links().at(-1))?.focus(); // its chat was removed
  };

  addEventListener("keydown", (event) => {
    const entry = event.target.closest?.("#history li");
    if (!entry || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const links = [...document.querySelectorAll("#history li a")];
    const row = [...entry.querySelectorAll("a, button")];
    const up = links.indexOf(row[0]);
    const across = row.indexOf(event.target);
    const to = {
      ArrowDown: links[up + 1],
      ArrowUp: links[up - 1],
      Home: links[0],
      End: links.at(-1),
      ArrowRight: row[across + 1],
      ArrowLeft: row[across - 1],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    for (const link of links) link.tabIndex = link.parentElement === to.parentElement ? 0 : -1;
    to.focus();
  });

  // After a removal the next chat or picture moves to the same place: a double click must not remove it too.
  const DOUBLE_MS = 1500;
  let deletion = { x: 0, y: 0, at: -DOUBLE_MS };
  const again = ({ clientX: x, clientY: y, detail }) => {
    if (!detail) return false; // by a key
    const at = performance.now();
    const near = Math.hypot(x - deletion.x, y - deletion.y) < 10 && at - deletion.at < DOUBLE_MS;
    if (!near) deletion = { x, y, at };
    return near;
  };
  addEventListener("pointermove", ({ clientX, clientY }) => {
    if (Math.hypot(clientX - deletion.x, clientY - deletion.y) >= 10) deletion.at = -DOUBLE_MS;
  });

  // --- Other tabs and devices: their changes are drawn when a tab announces them or this page gets the focus ---------

  let refreshing = false;
  const refresh = () => {
    if (refreshing || document.hidden || !page.seen || page.answer || asking || left) return;
    refreshing = true;
    const { conversation } = page;
    inTurn(() => {
      if (page.answer || conversation !== page.conversation) return (refreshing = false), turnEnds();
      if (conversation) page.trigger("ended", { conversation, have: have() });
      else page.trigger("manage", { do: "list", conversation });
    });
  };
  const tabs = new BroadcastChannel("impchat");
  tabs.addEventListener("message", refresh);
  addEventListener("focus", refresh);
  document.addEventListener("visibilitychange", refresh);

  // --- The running answer --------------------------------------------------------------------------------------------

  const grow = (line) => {
    if ("from" in line) return morph(find("#live .words"), parsed(line.html), line.from);
    const [answer] = parsed(line.html);
    const number = numberOf(answer.dataset.message);
    morph(turns(), [answer], number < 0 ? turns().childNodes.length : number);
  };

  let reading = new AbortController();
  const follow = async (answer) => {
    if (answer === page.answer) return;
    reading.abort();
    page.answer = answer;
    document.body.classList.toggle("answering", Boolean(answer));
    if (!answer) return;
    const { conversation } = page;
    const { signal } = (reading = new AbortController());
    try {
      const response = await fetch(`/follow/${answer}`, { signal });
      if (response.ok) for await (const line of linesOf(response.body)) if (!signal.aborted) grow(line);
    } catch {
      // Aborted, or the connection is lost: then the event below fails too and reports it.
    }
    if (signal.aborted) return;
    inTurn(() => (signal.aborted ? turnEnds() : page.trigger("ended", { conversation, have: have() })));
  };

  const stop = () => post(`/stop/${page.answer}`);

  // --- The draft's text: kept in this tab until the server has saved it ----------------------------------------------

  let draft = { conversation: page.conversation, failures: 0 }; // a new object for each visit of a conversation
  let left = { saved: Promise.resolve() }; // while another conversation opens: the text of the one that was left

  const key = (conversation) => `impchat.draft.${conversation}`;
  const stored = (conversation) => sessionStorage.getItem(key(conversation)); // null: everything is saved on the server
  const forget = (conversation) => sessionStorage.removeItem(key(conversation));
  const store = (conversation, words) => {
    try {
      sessionStorage.setItem(key(conversation), words);
    } catch {
      // Exceeds the browser's quota: only the server keeps it.
    }
  };

  const saveWords = async (conversation, words, options) => {
    store(conversation, words);
    if (!conversation) return; // a new conversation has no draft on the server
    const saved = await post(`/draft?c=${encodeURIComponent(conversation)}`, words, options);
    if (saved && stored(conversation) === words) forget(conversation);
  };

  let draftTimer = 0;
  const draftIsSaved = () => {
    clearTimeout(draftTimer);
    draftTimer = 0;
  };
  const draftChanged = () => {
    clearTimeout(draftTimer);
    draftTimer = setTimeout(saveDraft, 800);
  };
  const saveDraft = async (options) => {
    if (!draftTimer || left) return;
    draftIsSaved();
    await saveWords(draft.conversation, question().value, options);
  };
  // The model reads words as soon as they are complete, so that little is left to read when the question is sent.
  let typedTimer = 0;
  const typed = () => {
    const words = question().value;
    clearTimeout(typedTimer);
    typedTimer = setTimeout(
      () => {
        if (left || !draft.conversation || page.answer || !words.trim() || words.length > 16000) return;
        fetch(`/typed?c=${encodeURIComponent(draft.conversation)}`, { method: "POST", body: words }).catch(() => {});
      },
      /[\s\u3040-\u9fff]$/.test(words) ? 0 : 400,
    );
  };
  addEventListener("input", (event) => {
    if (event.target !== question()) return;
    draftChanged();
    typed();
  });
  addEventListener("pagehide", () => {
    if (asking?.taken) store(asking.draft.conversation, asking.words);
    // A keepalive request may have at most 64 KiB. Text that does not arrive is still in this tab after a reload.
    saveDraft({ keepalive: question()?.value.length < 20_000 });
  });

  const leaveDraft = () => {
    if (left || !question()) return left;
    if (asking && !asking.taken) take(); // a question that is waiting for its pictures
    left = { words: question().value, saved: saveDraft() };
    write("");
    draftIsSaved();
    return left;
  };
  const enterDraft = (words) => {
    const typed = question().value; // typed while the conversation was opening
    const unsaved = stored(draft.conversation);
    left = null;
    write((unsaved ?? words) + typed);
    if (typed || unsaved !== null) draftChanged();
    else draftIsSaved();
  };
  const stay = () => {
    write((left.words ?? "") + question().value);
    left = null;
    settle(page.conversation, true); // the browser's back button has changed the address
    draftChanged();
  };
  // Calls `act` once the conversation that the user opened is shown.
  const whenThere = (act) => {
    if (!left) return act();
    inTurn(() => {
      turnEnds();
      whenThere(act);
    });
  };

  // --- Scrolling: stay at the end while the answer grows, unless the user has scrolled up ----------------------------

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
    const grown = () => atEnd && toEnd();
    new MutationObserver(grown).observe(scroll, { childList: true, subtree: true, characterData: true });
    new ResizeObserver(grown).observe(scroll);
  };

  // --- Actions of buttons --------------------------------------------------------------------------------------------

  const menu = (shown) => {
    document.body.classList.toggle("menu", shown);
    find("[data-do=menu]").setAttribute("aria-expanded", String(shown));
    (shown ? find("#new") : find("[data-do=menu]")).focus();
  };

  // For pages without access to the clipboard: not https, or not permitted.
  const copyOldWay = (text) => {
    let copied = false;
    const give = (event) => {
      event.clipboardData.setData("text/plain", text);
      event.preventDefault();
      copied = true;
    };
    document.addEventListener("copy", give);
    document.execCommand("copy");
    document.removeEventListener("copy", give);
    return copied;
  };

  const labels = new WeakMap();
  const copy = async (button, text) => {
    const written = navigator.clipboard?.writeText(text) ?? Promise.reject();
    const copied = await written.then(() => true, () => copyOldWay(text));
    if (!copied) return notice("error", say("copy_failed"));
    if (!labels.has(button)) labels.set(button, button.textContent); // a second press must not store "Copied"
    button.textContent = say("copied");
    announce(say("copied"));
    setTimeout(() => (button.textContent = labels.get(button)), 1500);
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
      if (listWaits !== null) drawList(listWaits);
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

  // --- Pairing a phone: a code is shown while it is valid ------------------------------------------------------------

  const devices = element("dialog", { id: "devices", "aria-labelledby": "devices-title" });
  const pairing = { code: "", until: 0, timer: 0, holders: "" };

  const askDevices = async (what, body) => {
    const response = await fetch(`/devices/${what}`, { method: "POST", body });
    if (!response.ok) throw Error(await refusal(response));
    return response.status === 204 ? {} : response.json();
  };

  const drawDevices = ({ html, holders }) => {
    if (html !== undefined) find("#offer").innerHTML = html;
    if (holders !== pairing.holders) find("#holders").innerHTML = pairing.holders = holders; // keeps the focus
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
    delete: (button, event) => {
      if (again(event)) return;
      manage({ do: "delete", conversation: button.closest("li").dataset.conversation });
    },
    older: () => {
      page.listed += 100;
      manage({ do: "list", conversation: "" });
    },
    "attach-pasted": () => {
      notice();
      for (const file of pasted) add(file);
      pasted = [];
      question().focus();
    },
    skip: () => {
      if (document.body.classList.contains("menu")) menu(false);
      question().focus();
    },
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
    "copy-answer": (button) => copy(button, button.dataset.source),
    "copy-code": (button) => copy(button, find("pre", button.closest(".code")).textContent.replace(/\n$/, "")),
    latest: toEnd,
    enlarge: (button) => {
      const large = element("img", { src: `/image/${button.dataset.image}`, alt: find("img", button).alt });
      large.addEventListener("load", () => {
        large.style.setProperty("--width", `${large.naturalWidth}px`);
        large.style.setProperty("--ratio", large.naturalWidth / large.naturalHeight);
      });
      viewer.replaceChildren(
        large,
        element("button", { type: "button", class: "tool close", "aria-label": say("hide") }),
      );
      viewer.showModal();
    },
    detach: (button, event) => {
      if (again(event)) return;
      const made = button.closest(".chip");
      if (made.dataset.image) detach(made.dataset.image);
      made.dataset.detached = "yes";
      dropChip(made);
      question().focus();
    },
    sample: (button) => {
      const address = `/sample/${encodeURIComponent(button.dataset.sample)}`;
      add(() => fetch(address).then((response) => response.blob()), address);
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
    if (!button || event.ctrlKey || event.metaKey || event.shiftKey) return; // let the browser open a link in a new tab
    event.preventDefault();
    actions[button.dataset.do](button, event);
  });

  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || viewer.open || devices.open) return;
    if (document.body.classList.contains("menu")) menu(false);
    else if (document.body.classList.contains("answering")) find("#stop").click();
  });

  // --- Sending: each question once, and never a blank one ------------------------------------------------------------

  let asking = null; // the question being sent: its draft, and its text once that is `taken` out of the box
  const isBlank = () => !question().value.trim() && !chips().length;
  const maySend = () => {
    if (asking || isBlank()) return false;
    asking = { draft, words: "", taken: false }; // now, because Gradio calls `sending` a moment later
    if (left || !uploads.size) take(); // text typed later is the next question; during uploads, still this one
    return true;
  };
  const take = () => {
    Object.assign(asking, { words: question().value, taken: true });
    write("");
    draftIsSaved();
  };
  const giveBack = () => {
    const { words, draft: of } = asking;
    if (of !== draft || left) saveWords(of.conversation, words);
    else write([words, question().value].filter(Boolean).join("\n"));
  };
  const showBlank = () => find("#send").setAttribute("aria-disabled", String(isBlank()));
  addEventListener("input", (event) => event.target === question() && showBlank());
  const halt = (event) => {
    event.stopImmediatePropagation();
    event.preventDefault();
  };
  addEventListener(
    "keypress",
    (event) => {
      if (event.target !== question() || event.key !== "Enter") return;
      if (event.isComposing) event.stopPropagation(); // Enter ends the input of a Chinese word
      else if (!event.shiftKey && !maySend()) halt(event);
    },
    true,
  );
  addEventListener("click", (event) => event.target.closest("#send") && !maySend() && halt(event), true);

  // --- Functions that Gradio calls -----------------------------------------------------------------------------------

  const firstTime = (state) => {
    page.words = state.words;
    find("#top .model").textContent = state.model; // the model may have changed since the page was built
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
    document.body.prepend(element("a", { id: "skip", href: "#question", "data-do": "skip" }, say("skip")));
    document.body.append(picker, viewer, devices, element("div", { id: "drop" }, element("span", {}, say("drop"))));
    find("#composer").prepend(element("button", { type: "button", id: "latest", "data-do": "latest", "aria-label": say("latest"), title: say("latest") }));
    new MutationObserver(showBlank).observe(find("#chips"), { childList: true });
    showBlank();
    watchScroll();
  };

  // Draws a new `state` from the server; its `event` names what happened.
  const draw = (state) => {
    page.seen = state.stamp;
    if (state.words) firstTime(state);
    if (state.listed) page.listed = state.listed;
    const { event } = state;
    if (event === "cancelled") return;
    if (state.thread) drawThread(state.thread);
    if (state.list !== undefined) drawList(state.list);
    if (event === "opened") {
      page.answer = null;
      if (asked === wanted) {
        settle(state.conversation, Boolean(state.words));
        draft = { conversation: state.conversation, failures: 0 };
        enterDraft(state.draft);
        clearChips();
        drawChips(state.pictures);
      } else page.conversation = state.conversation; // another one is opening, and the address may name it
      if (document.body.classList.contains("menu")) menu(false);
    }
    if (event === "sent") {
      forget(draft.conversation);
      draft.conversation = state.conversation;
      if (question().value && !left) draftChanged(); // the next question has been started
      settle(state.conversation, false);
      clearChips();
      announce(say("answering"));
    }
    if (event === "ended") {
      page.answer = null;
      if (!refreshing) announce(find("#thread .turn:last-child .words")?.innerText ?? "");
    }
    if (event === "elsewhere") forget(asking.draft.conversation);
    if (event !== "managed" && event !== "elsewhere") follow(state.answer);
    if (refreshing && !uploads.size) drawChips(state.pictures);
    if (event === "gone") {
      page.gone = state.conversation;
      open("");
    }
    if (event === "managed" && page.reopen) {
      open(page.reopen);
      page.reopen = "";
    }
    if (event === "opened" || event === "sent") toEnd();
    if (state.notice || (!refreshing && (event !== "opened" || !find("#notice .done")))) // "Deleted: Undo" stays while the next chat opens
      notice(state.notice?.kind, state.notice?.text, state.notice?.undo && undoButton(state.notice.undo));
    if (["managed", "gone"].includes(event) && deletion.at >= 0) deletion.at = performance.now();
    if (["sent", "elsewhere", "managed", "gone"].includes(event) && !refreshing) tabs.postMessage("");
    find("#title").textContent = state.title;
    document.title = state.title ? `${state.title} · ImpChat` : "ImpChat";
    const free = ["opened", "sent"].includes(event) || document.activeElement === document.body; // else the user is using it
    if (byHand.matches && free && !refreshing) question().focus({ preventScroll: true });
  };

  // Finishes an event with its `state`, or without one.
  const ends = (state) => {
    refreshing = false;
    if (!state && left && asked === wanted) stay();
    if (asking?.underway) {
      if (asking.taken && !["sent", "elsewhere"].includes(state?.event)) giveBack();
      asking = null;
    }
    turnEnds();
  };

  // Called after each of Gradio's events, even if the server sent nothing.
  const show = (state) => {
    const came = state.stamp > page.seen;
    try {
      if (came) draw(state);
      else notice("error", say("lost"));
    } finally {
      document.body.classList.add("ready");
      ends(came && state);
    }
  };

  // Gradio does not call `show` if a request did not reach the server.
  const reach = window.fetch;
  window.fetch = async (...request) => {
    try {
      return await reach(...request);
    } catch (error) {
      if (String(request[0]).includes("/gradio_api/run/")) {
        notice("error", say("lost"));
        ends();
      }
      throw error;
    }
  };

  const here = ({ words, language, thread, list, draft, ...state }) => ({
    ...state,
    conversation: page.conversation,
    answer: page.answer,
    listed: page.listed,
  });

  const sending = async (state) => {
    const arrives = left !== null;
    const { failures } = draft;
    await Promise.all(uploads);
    await new Promise(inTurn);
    if (arrives) asking.draft = draft;
    const cancelled = !arrives && asking.draft.failures > failures;
    if (!cancelled && !asking.taken) take();
    asking.underway = true; // the next state from the server belongs to it
    return [asking.words, { ...here(state), asks: asking.draft.conversation, have: have(), cancelled }];
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
