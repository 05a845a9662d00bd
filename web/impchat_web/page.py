"""The page: Gradio's components, and what happens when a person acts on them.

In: an open App. Out: a `gr.Blocks` for `server` to mount. The core owns conversations and answers; a handler here asks
it and draws what it says, so a reload, a second tab or a restarted server loses nothing.
The browser's address (`?c=UUID`) names the open conversation; `page.js` sends it with every event, and one event at a
time. An answer that is being written comes by a route of `server`.
This file does not know HTTP, HTML or how an answer comes to be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from impchat import paths, remarks, settings
from impchat.app import App
from impchat.errors import ImpChatError
from impchat.texts import LANGUAGES, say
from impchat_web import banners, languages, render, render_devices

State = dict[str, Any]
"""What the browser keeps: conversation, title, answer (the uuid of the one being written, or ""), pictures (sha256 of
the draft's), and what just happened: event, notice (a sentence to show), and stamp, which is larger in each state than
in those before, also in those before a restart."""

_stamps = count(time.time_ns() // 1000)  # microseconds are exact in JavaScript's numbers
_NOWHERE: State = {"conversation": "", "title": "", "answer": "", "pictures": []}


def owner_of(request: gr.Request | None) -> str:
    """Whose conversations a request may see. Nobody logs in yet: all are this machine's."""
    return settings.OWNER


@dataclass(frozen=True, slots=True)
class View:
    """The handlers of the page's events. Each returns new values of components, in the order of its `outputs`."""

    app: App
    forced_language: str | None
    pairs: bool  # whether phones can be paired here

    def language(self, request: gr.Request) -> str:
        return languages.choose(request.headers.get("accept-language", ""), self.forced_language)

    # What is on the page

    def _thread(self, conversation: str, request: gr.Request) -> str:
        language = self.language(request)
        history, owner = self.app.history, owner_of(request)
        messages = history.branch(conversation, owner) if conversation else []
        if not messages:
            return render.welcome([file.name for file in paths.samples()], language)
        images = {sha: history.image(sha) for m in messages for sha in m.images}
        return render.thread(messages, images, language)

    def _history(self, selected: str, request: gr.Request) -> str:
        conversations = self.app.history.conversations(owner_of(request))
        return render.history(conversations, selected, self.language(request), date.today())

    def _state(self, conversation: str, event: str, request: gr.Request, notice: dict[str, str] | None = None) -> State:
        state = dict(_NOWHERE)
        if conversation:
            row = self.app.history.conversation(conversation, owner_of(request))
            branch = self.app.history.branch(conversation, owner_of(request))
            state["conversation"] = conversation
            state["title"] = remarks.title_of(row, self.language(request))
            state["pictures"] = list(row.draft_images)
            if branch and branch[-1].state == "streaming":
                state["answer"] = branch[-1].uuid
        return _marked(state, event, notice)

    def _notice(self, error: ImpChatError, request: gr.Request) -> dict[str, str]:
        return {"kind": "error", "text": error.sentence(self.language(request))}

    def _refused(self, state: State, error: ImpChatError, request: gr.Request) -> State:
        return _marked(state, "refused", self._notice(error, request))

    def _opened(self, conversation: str, request: gr.Request, notice: dict[str, str] | None = None) -> tuple[Any, ...]:
        """All of a conversation, for `thread, history, question, state`; the empty page for ""."""
        try:
            return (
                self._thread(conversation, request),
                self._history(conversation, request),
                self.app.history.conversation(conversation, owner_of(request)).draft if conversation else "",
                self._state(conversation, "opened", request, notice),
            )
        except ImpChatError as error:
            notice = self._notice(error, request)
            if conversation:  # an old bookmark
                return self._opened("", request, notice)
            welcome = render.welcome([file.name for file in paths.samples()], self.language(request))
            return welcome, gr.skip(), gr.skip(), _marked(_NOWHERE, "opened", notice)

    # What a person does

    def load(self, request: gr.Request) -> tuple[Any, ...]:
        language = self.language(request)
        words = {key: text for key, text in LANGUAGES[language].items() if key.startswith("web.js.")}
        thread, history, draft, state = self._opened(request.query_params.get("c", ""), request)
        return (
            thread,
            history,
            gr.update(
                value=draft, label=say("chat.question", language), placeholder=say("chat.question_hint", language)
            ),
            state | {"language": language, "words": words, "model": self.app.model},
            *(say(f"chat.{name}", language) for name in ("new", "attach", "send", "stop")),
            banners.html(self.app, language),
            render.place(self.app.server, language),
            render_devices.button(language) if self.pairs else "",
        )

    def navigate(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        return self._opened(event.conversation, request)

    def send(self, text: str, state: State, request: gr.Request) -> tuple[Any, ...]:
        """For `thread, history, question, state`. Where the core refuses, the text stays as it is."""
        conversation = state.get("conversation", "")
        if state.get("cancelled"):  # a picture of this question could not be read, the page says so
            return gr.skip(), gr.skip(), gr.skip(), _marked(state, "cancelled")
        try:
            chat = self.app.chat(conversation or None, owner_of(request))
            answer = chat.send(text)
            return (
                self._thread(answer.conversation, request),
                self._history(answer.conversation, request),
                "",
                self._state(answer.conversation, "sent", request) | {"answer": answer.message},
            )
        except ImpChatError as error:
            return gr.skip(), gr.skip(), gr.skip(), self._refused(state, error, request)

    def ended(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """The conversation whose answer is complete, for `thread, history, state`."""
        conversation = event.conversation
        try:
            return (
                self._thread(conversation, request),
                self._history(conversation, request),
                self._state(conversation, "ended", request),
            )
        except ImpChatError as error:  # the history cannot be read
            state = _NOWHERE | {"conversation": conversation}
            return gr.skip(), gr.skip(), _marked(state, "ended", self._notice(error, request))

    def manage(self, state: State, request: gr.Request, event: gr.EventData) -> tuple[Any, State]:
        """Rename, delete or restore a conversation, for `history, state`."""
        conversation, here = event.conversation, state.get("conversation", "")
        history, owner, language = self.app.history, owner_of(request), self.language(request)
        notice = None
        try:
            match event.do:
                case "rename":
                    if title := event.title.strip()[: settings.TITLE_CHARS]:
                        history.update_conversation(conversation, owner, title=title)
                case "delete":
                    title = remarks.title_of(history.conversation(conversation, owner), language)
                    history.delete_conversation(conversation, owner)
                    told = say("chat.deleted", language, title=title)
                    notice = {"kind": "done", "text": told, "undo": conversation}
                case "restore":
                    history.restore_conversation(conversation, owner)
            drawn = self._history(here, request)
            if here == conversation and event.do == "delete":
                return drawn, _marked(state, "gone", notice)
            return drawn, self._state(here, "managed", request, notice)
        except ImpChatError as error:
            return gr.skip(), self._refused(state, error, request)


def _marked(state: State, event: str, notice: dict[str, str] | None = None) -> State:
    return state | {"event": event, "notice": notice, "stamp": next(_stamps)}


def build(app: App, language: str | None, pairs: bool = False) -> gr.Blocks:
    """The page for `app`, in `language` or, where None, in each browser's own. `pairs`: with a way to pair phones."""
    view = View(app, language, pairs)
    # Plain requests, without Gradio's queue: it loses an event that comes while it closes the stream of another.
    events = {"show_progress": "hidden", "api_visibility": "private", "queue": False, "trigger_mode": "multiple"}
    with gr.Blocks(title="ImpChat", analytics_enabled=False, fill_width=True) as page:
        state = gr.JSON({}, visible=False)
        with gr.Row(elem_id="shell"):
            with gr.Column(elem_id="side", min_width=0):
                _html(f'<div class="brand">{render.MARK}<span>ImpChat</span></div>')
                new = gr.Button("New chat", elem_id="new")
                bus = "impchat.bus(trigger) // 'navigate', 'ended', 'manage'"  # Gradio looks for the names here
                history = _html("", elem_id="history", js_on_load=bus)
                devices = _html("", elem_id="devices-button")
            with gr.Column(elem_id="main", min_width=0):
                _html(
                    '<button type="button" class="tool menu" data-do="menu" aria-expanded="false"></button>'
                    f'<span id="title" dir="auto"></span><span class="model">{escape(app.model)}</span>',
                    elem_id="top",
                )
                banner = _html("", elem_id="banner")
                with gr.Column(elem_id="scroll"):
                    thread = _html("", elem_id="thread")
                    _html('<div id="live"></div>')
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

        opened = [thread, history, question, state]
        shown = [
            page.load(view.load, None, [*opened, new, attach, send, stop, banner, local, devices], **events),
            history.navigate(view.navigate, None, opened, **events),
            history.ended(view.ended, None, [thread, history, state], **events),
            history.manage(view.manage, state, [history, state], js="state => impchat.here(state)", **events),
            gr.on(
                [question.submit, send.click],
                view.send,
                [question, state],
                opened,
                js="async (text, state) => [text, await impchat.sending(state)]",
                **events,
            ),
        ]
        for event in shown:
            event.then(None, state, None, js="state => impchat.show(state)")
        new.click(None, None, None, js="() => impchat.open('')")
        stop.click(None, None, None, js="() => impchat.stop()")
        attach.click(None, None, None, js="() => impchat.choose()")
    return page


def _html(value: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, **({"apply_default_css": False, "js_on_load": None} | options))
