"""The page: Gradio's components and event handlers.

In: an open App. Out: a `gr.Blocks` for `server` to mount. The core owns conversations and answers; the handlers read
them from the core at each event, so a reload, a second tab or a restarted server loses nothing. The browser's address
(`?c=UUID`) names the open conversation; `static/state.js` sends it with every event, and `static/gradio.js` starts one
event at a time. A running answer is streamed by a route of `server`.
This file does not know HTTP, HTML or how an answer is made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from impchat import paths, presentation, settings
from impchat.app import App
from impchat.errors import HistoryError, ImpChatError
from impchat.texts import LANGUAGES, say
from impchat_web import banners, languages, render, render_devices

State = dict[str, Any]
"""The state kept by the browser: conversation, title, answer (the uuid of the running one, or ""), pictures (sha256 of
the draft's), listed (maximum number of chats in the list), and the last event: event, notice (a sentence to show), and
stamp, which increases with each state, also across restarts. New content to draw: list, the HTML of the chats; draft,
the text of a conversation that was opened; thread, the `html` of messages and the uuid of the message `after` which
they follow ("": they are all messages)."""

_SESSIONS = 8  # Gradio keeps the state of up to 10,000 pages by default; this page does not need it
_QUEUE_SLEEP_S = 3600.0

_stamps = count(time.time_ns() // 1000)  # microseconds, which JavaScript's numbers represent exactly
_NOWHERE: State = {"conversation": "", "title": "", "answer": "", "pictures": [], "draft": ""}
_LISTED = 100  # chats in the list at first, and added by each request for more


def owner_of(request: gr.Request | None) -> str:
    """The owner whose conversations a request may see. There is no login yet: all belong to this machine."""
    return settings.OWNER


@dataclass(frozen=True, slots=True)
class View:
    """The page's event handlers. Each returns new values of components, in the order of its `outputs`."""

    app: App
    forced_language: str | None
    pairs: bool  # whether phones can be paired on this page

    def language(self, request: gr.Request) -> str:
        return languages.choose(request.headers.get("accept-language", ""), self.forced_language)

    # Contents of the page

    def _thread(self, conversation: str, request: gr.Request, have: str = "") -> dict[str, str]:
        """The messages after `have`, the last message shown; all of them if `have` is not in this conversation.

        Raises HistoryError "history.no_conversation", also for a deleted one."""
        language, history, owner = self.language(request), self.app.history, owner_of(request)
        if conversation and history.conversation(conversation, owner).deleted_utc:
            raise HistoryError("history.no_conversation")
        messages = history.branch(conversation, owner) if conversation else []
        if not messages:
            return self._welcome(language)
        known = next((number for number, message in enumerate(messages, 1) if message.uuid == have), 0)
        html = render.thread(messages, history.image, language, known)
        return {"after": have if known else "", "html": html}

    def _welcome(self, language: str) -> dict[str, str]:
        return {"after": "", "html": render.welcome([file.name for file in paths.samples(self.app.demo)], language)}

    def _list(self, selected: str, listed: int, request: gr.Request) -> str:
        conversations = self.app.history.conversations(owner_of(request), limit=listed + 1)
        more = len(conversations) > listed
        return render.history(conversations[:listed], selected, self.language(request), date.today(), more)

    def _state(self, conversation: str, event: str, request: gr.Request, notice: dict[str, str] | None = None) -> State:
        state = dict(_NOWHERE)
        if conversation:
            row = self.app.history.conversation(conversation, owner_of(request))
            branch = self.app.history.branch(conversation, owner_of(request))
            state["conversation"] = conversation
            state["title"] = presentation.title_of(row, self.language(request))
            state["pictures"] = list(row.draft_images)
            state["draft"] = row.draft
            if branch and branch[-1].state == "streaming":
                state["answer"] = branch[-1].uuid
        return _marked(state, event, notice)

    def _notice(self, error: ImpChatError, request: gr.Request) -> dict[str, str]:
        return {"kind": "error", "text": error.sentence(self.language(request))}

    def _refused(self, state: State, error: ImpChatError, request: gr.Request) -> State:
        return _marked(state, "refused", self._notice(error, request))

    def _opened(
        self, conversation: str, listed: int, request: gr.Request, notice: dict[str, str] | None = None
    ) -> State:
        """Everything of a conversation; the empty page for ""."""
        try:
            thread, chats = self._thread(conversation, request), self._list(conversation, listed, request)
            return self._state(conversation, "opened", request, notice) | {"thread": thread, "list": chats}
        except ImpChatError as error:
            notice = self._notice(error, request)
            if conversation:  # an old bookmark
                return self._opened("", listed, request, notice)
            return _marked(_NOWHERE | {"thread": self._welcome(self.language(request))}, "opened", notice)

    # Actions of the user

    def load(self, request: gr.Request) -> tuple[Any, ...]:
        language = self.language(request)
        words = {key: text for key, text in LANGUAGES[language].items() if key.startswith("web.js.")}
        state = self._opened(request.query_params.get("c", ""), _LISTED, request)
        return (
            gr.update(label=say("chat.question", language), placeholder=say("chat.question_hint", language)),
            state | {"language": language, "words": words, "listed": _LISTED, "model": self.app.model},
            *(say(f"chat.{name}", language) for name in ("new", "attach", "send", "stop")),
            banners.html(self.app, language),
            render.place(self.app.server, language),
            render_devices.button(language) if self.pairs else "",
        )

    def navigate(self, state: State, request: gr.Request, event: gr.EventData) -> State:
        return self._opened(event.conversation, state.get("listed", _LISTED), request)

    def send(self, text: str, state: State, request: gr.Request) -> State:
        """Ask in the conversation `asks` of `state`, which may differ from the shown one if the user has opened
        another. If the core refuses, the page keeps the text."""
        here = state.get("conversation", "")
        conversation = state.get("asks", here)
        if state.get("cancelled"):  # a picture of this question could not be read; the page reports it
            return _marked(state, "cancelled")
        try:
            chat = self.app.chat(conversation or None, owner_of(request))
            answer = chat.send(text)
            if conversation != here:
                drawn: State = {"list": self._list(here, state.get("listed", _LISTED), request)}
                return self._state(here, "elsewhere", request) | drawn
            thread = self._thread(answer.conversation, request, state.get("have", ""))
            chats = self._list(answer.conversation, state.get("listed", _LISTED), request)
            drawn = {"answer": answer.message, "thread": thread, "list": chats}
            return self._state(answer.conversation, "sent", request) | drawn
        except ImpChatError as error:
            return self._refused(state, error, request)

    def ended(self, state: State, request: gr.Request, event: gr.EventData) -> State:
        """The conversation, after its answer has ended or a change elsewhere; the empty page if it was deleted."""
        conversation = event.conversation
        try:
            thread, chats = (
                self._thread(conversation, request, event.have),
                self._list(conversation, state.get("listed", _LISTED), request),
            )
            return self._state(conversation, "ended", request) | {"thread": thread, "list": chats}
        except ImpChatError as error:
            if error.code == "history.no_conversation":
                return self._opened("", state.get("listed", _LISTED), request, self._notice(error, request))
            # the history cannot be read: keep what is shown
            return _marked(_NOWHERE | {"conversation": conversation}, "ended", self._notice(error, request))

    def manage(self, state: State, request: gr.Request, event: gr.EventData) -> State:
        """Rename, delete or restore a conversation, or only update the list."""
        conversation, here = event.conversation, state.get("conversation", "")
        history, owner, language = self.app.history, owner_of(request), self.language(request)
        notice = None
        try:
            match event.do:
                case "rename":
                    if title := event.title.strip()[: settings.TITLE_CHARS]:
                        history.update_conversation(conversation, owner, title=title)
                case "delete":
                    title = presentation.title_of(history.conversation(conversation, owner), language)
                    history.delete_conversation(conversation, owner)
                    told = say("chat.deleted", language, title=title)
                    notice = {"kind": "done", "text": told, "undo": conversation}
                case "restore":
                    history.restore_conversation(conversation, owner)
            drawn = {"list": self._list(here, state.get("listed", _LISTED), request)}
            if here == conversation and event.do == "delete":
                return _marked(state, "gone", notice) | drawn
            return self._state(here, "managed", request, notice) | drawn
        except ImpChatError as error:
            return self._refused(state, error, request)


def _marked(state: State, event: str, notice: dict[str, str] | None = None) -> State:
    return state | {"event": event, "notice": notice, "stamp": next(_stamps)}


def build(app: App, language: str | None, pairs: bool = False) -> gr.Blocks:
    """The page for `app`, in `language`; None: in each browser's language. `pairs`: include the pairing of phones."""
    view = View(app, language, pairs)
    # Plain requests instead of Gradio's queue, which loses an event that arrives while another's stream is closing.
    events: dict[str, Any] = {
        "show_progress": "hidden",
        "api_visibility": "private",
        "queue": False,
        "trigger_mode": "multiple",
    }
    page = gr.Blocks(title="ImpChat", analytics_enabled=False, fill_width=True)
    with page:
        state = gr.JSON({}, visible=False)
        with gr.Row(elem_id="shell"):
            with gr.Column(elem_id="side", min_width=0):
                _html(f'<div class="brand">{render.MARK}<span>ImpChat</span></div>')
                new = gr.Button("New chat", elem_id="new")
                bus = "impchat.bus(trigger) // 'navigate', 'ended', 'manage'"  # Gradio finds the event names here
                chats = _html('<div class="list"></div>', elem_id="history", js_on_load=bus)
                devices = _html("", elem_id="devices-button")
            with gr.Column(elem_id="main", min_width=0):
                _html(
                    '<button type="button" class="tool menu" data-do="menu" aria-expanded="false"></button>'
                    f'<span id="title" dir="auto"></span><span class="model">{escape(app.model)}</span>',
                    elem_id="top",
                )
                banner = _html("", elem_id="banner")
                with gr.Column(elem_id="scroll"):
                    _html('<div class="turns"></div>', elem_id="thread")
                with gr.Column(elem_id="composer"):
                    _html('<div id="notice" role="alert"></div><div id="chips"></div>')
                    question = gr.Textbox(
                        elem_id="question", lines=1, max_lines=8, container=False, autofocus=True, label="Question"
                    )
                    with gr.Row(elem_id="tools"):
                        attach = gr.Button("Add a picture", elem_id="attach")
                        send = gr.Button("Send", elem_id="send")
                        stop = gr.Button("Stop", elem_id="stop")
                local = _html("", elem_id="local")
        _html('<div id="announce" role="status" class="unseen"></div>')

        js = "state => impchat.here(state)"
        shown = [
            page.load(view.load, None, [question, state, new, attach, send, stop, banner, local, devices], **events),
            chats.navigate(view.navigate, state, state, js=js, **events),
            chats.ended(view.ended, state, state, js=js, **events),
            chats.manage(view.manage, state, state, js=js, **events),
            gr.on(
                [question.submit, send.click],
                view.send,
                [question, state],
                state,
                js="(_, state) => impchat.sending(state)",
                **events,
            ),
        ]
        for event in shown:
            event.then(None, state, None, js="state => impchat.show(state)")
        new.click(None, None, None, js="() => impchat.open('')")
        stop.click(None, None, None, js="() => impchat.stop()")
        attach.click(None, None, None, js="() => impchat.choose()")
    page.state_session_capacity = _SESSIONS
    # No event uses Gradio's queue, which otherwise polls a thousand times a second.
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = _QUEUE_SLEEP_S
    return page


def _html(value: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, **({"apply_default_css": False, "js_on_load": None} | options))
