"""The page: Gradio's components, and what happens when a person acts on them.

In: an open App. Out: a `gr.Blocks` for `server` to mount. The core owns conversations and answers; a handler here asks
it and draws what it says, so a reload, a second tab or a restarted server loses nothing.
The browser's address (`?c=UUID`) names the open conversation; `page.js` sends it with every event.
This file does not know HTTP, HTML or how an answer comes to be.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import gradio as gr

from impchat import paths, settings
from impchat.answer import Answer
from impchat.app import App
from impchat.errors import ImpChatError
from impchat.messages import Event, Failed, Finished, Reading, Text
from impchat.texts import LANGUAGES, say
from impchat_web import languages, render

FRAME_S = 0.05  # an answer is drawn at most this often
IDLE_S = 0.5  # a reader of a silent answer looks this often whether its page has gone

State = dict[str, Any]
"""What the browser keeps: conversation, title, answer (the uuid of the one being written, or ""), pictures (sha256 of
the draft's), and what just happened: event, notice (a sentence to show), and stamp, which no two states share."""

_NOWHERE: State = {"conversation": "", "title": "", "answer": "", "pictures": []}


def sample_names() -> list[str]:
    """The file names of the bundled sample pictures, drawings before photographs."""
    names = [p.name for p in paths.samples_dir().glob("*") if p.suffix in (".png", ".jpg")]
    return sorted(names, key=lambda name: (not name.endswith(".png"), name))


def owner_of(request: gr.Request | None) -> str:
    """Whose conversations a request may see. Nobody logs in yet: all are this machine's."""
    return settings.OWNER


@dataclass(frozen=True, slots=True)
class View:
    """The handlers of the page's events. Each returns new values of components, in the order of its `outputs`."""

    app: App
    forced_language: str | None

    def language(self, request: gr.Request) -> str:
        return languages.choose(request.headers.get("accept-language", ""), self.forced_language)

    # What is on the page

    def _thread(self, conversation: str, request: gr.Request) -> str:
        language = self.language(request)
        history, owner = self.app.history, owner_of(request)
        messages = history.branch(conversation, owner) if conversation else []
        if not messages:
            return render.welcome(sample_names(), language)
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
            state["title"] = render.title_of(row, self.language(request))
            state["pictures"] = list(row.draft_images)
            if branch and branch[-1].state == "streaming":
                state["answer"] = branch[-1].uuid
        return _marked(state, event, notice)

    def _notice(self, error: ImpChatError, request: gr.Request) -> dict[str, str]:
        return {"kind": "error", "text": error.sentence(self.language(request))}

    def _refused(self, state: State, error: ImpChatError, request: gr.Request) -> State:
        return _marked(state, "refused", self._notice(error, request))

    def _opened(self, conversation: str, request: gr.Request, notice: dict[str, str] | None = None) -> tuple[Any, ...]:
        """All of a conversation, for `thread, live, history, question, state`; the empty page for ""."""
        try:
            return (
                self._thread(conversation, request),
                "",
                self._history(conversation, request),
                self.app.history.conversation(conversation, owner_of(request)).draft if conversation else "",
                self._state(conversation, "opened", request, notice),
            )
        except ImpChatError as error:
            notice = self._notice(error, request)
            if conversation:  # an old bookmark
                return self._opened("", request, notice)
            welcome = render.welcome(sample_names(), self.language(request))
            return welcome, "", gr.skip(), gr.skip(), _marked(_NOWHERE, "opened", notice)

    # What a person does

    def load(self, request: gr.Request) -> tuple[Any, ...]:
        language = self.language(request)
        words = {key: text for key, text in LANGUAGES[language].items() if key.startswith("web.js.")}
        thread, live, history, draft, state = self._opened(request.query_params.get("c", ""), request)
        return (
            thread,
            live,
            history,
            gr.update(value=draft, label=say("web.question", language), placeholder=say("web.question_hint", language)),
            state | {"language": language, "words": words},
            *(say(f"web.{name}", language) for name in ("new", "attach", "send", "stop")),
            render.banner(language) if self.app.demo else "",
            say("web.local", language),
        )

    def new(self, request: gr.Request) -> tuple[Any, ...]:
        return self._opened("", request)

    def navigate(self, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        return self._opened(event.conversation, request)

    def send(self, text: str, state: State, request: gr.Request) -> tuple[Any, ...]:
        """For `thread, live, history, question, state`. Where the core refuses, the text stays as it is."""
        conversation = state.get("conversation", "")
        if state.get("cancelled"):  # a picture of this question could not be read, the page says so
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), _marked(state, "cancelled")
        try:
            chat = self.app.chat(conversation or None, owner_of(request))
            answer = chat.send(text)
            return (
                self._thread(answer.conversation, request),
                render.writing(render.Writing(answer.message), self.language(request)),
                self._history(answer.conversation, request),
                "",
                self._state(answer.conversation, "sent", request) | {"answer": answer.message},
            )
        except ImpChatError as error:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip(), self._refused(state, error, request)

    def follow(self, state: State, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The answer that `state` names, as it comes, for `thread, live, history, state`. Gradio ends this when the
        page goes; the answer goes on in the core, and the page that comes next follows it again."""
        nothing = (gr.skip(), gr.skip(), gr.skip(), gr.skip())
        conversation, language = state.get("conversation", ""), self.language(request)
        if not state.get("answer"):
            yield nothing
            return
        try:
            for answer in self._frames(state["answer"], request):
                yield nothing if answer is None else (gr.skip(), render.writing(answer, language), gr.skip(), gr.skip())
            yield (
                self._thread(conversation, request),
                "",
                self._history(conversation, request),
                self._state(conversation, "ended", request),
            )
        except ImpChatError as error:  # deleted meanwhile in another tab, or the history cannot be read
            ended = _marked(state | {"answer": ""}, "ended", self._notice(error, request))
            yield gr.skip(), "", gr.skip(), ended

    def _frames(self, message: str, request: gr.Request) -> Iterator[render.Writing | None]:
        """The answer at most every FRAME_S, None at least every IDLE_S where nothing is new; ends when it ends."""
        answer = self.app.answer(message, owner_of(request))
        after, text, reading = 0, "", None
        while True:
            seen = after
            for after, event in _news(answer, seen):
                if after == 1:
                    text, reading = "", None
                match event:
                    case Text(piece):
                        text += piece
                    case Reading():
                        reading = event
                    case Finished() | Failed():
                        return
            yield render.Writing(message, text, reading) if after != seen else None
            time.sleep(FRAME_S)

    def stop(self, state: State, request: gr.Request) -> State:
        try:
            self.app.answer(state["answer"], owner_of(request)).stop()
        except ImpChatError as error:
            return self._refused(state, error, request)
        return _marked(state, "stopping")

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
                    title = render.title_of(history.conversation(conversation, owner), language)
                    history.delete_conversation(conversation, owner)
                    told = say("web.deleted", language, title=title)
                    notice = {"kind": "done", "text": told, "undo": conversation}
                case "restore":
                    history.restore_conversation(conversation, owner)
            drawn = self._history(here, request)
            if here == conversation and event.do == "delete":
                return drawn, _marked(state, "gone", notice)
            return drawn, self._state(here, "managed", request, notice)
        except ImpChatError as error:
            return gr.skip(), self._refused(state, error, request)


def _news(answer: Answer, after: int) -> Iterator[tuple[int, Event]]:
    """What has come behind number `after`: waits up to IDLE_S for the first, then takes what is there."""
    for number, event in answer.events(after, IDLE_S):
        yield number, event
        yield from answer.events(number, 0)
        return


def _marked(state: State, event: str, notice: dict[str, str] | None = None) -> State:
    return state | {"event": event, "notice": notice, "stamp": secrets.token_hex(4)}


def build(app: App, language: str | None) -> gr.Blocks:
    """The page for `app`, in `language` or, where None, in each browser's own."""
    view = View(app, language)
    # No limit: Gradio would let one page wait until another's answer is complete. The core decides what runs at once.
    hidden = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    with gr.Blocks(title="ImpChat", analytics_enabled=False, fill_width=True) as page:
        state = gr.JSON({}, visible=False)
        with gr.Row(elem_id="shell"):
            with gr.Column(elem_id="side", min_width=0):
                _html(f'<div class="brand">{render.MARK}<span>ImpChat</span></div>')
                new = gr.Button("New chat", elem_id="new")
                history = _html("", elem_id="history", js_on_load="impchat.bus(trigger) // 'navigate', 'manage'")
            with gr.Column(elem_id="main", min_width=0):
                _html(
                    '<button type="button" class="tool menu" data-do="menu" aria-expanded="false"></button>'
                    f'<span id="title" dir="auto"></span><span class="model">{app.model}</span>',
                    elem_id="top",
                )
                banner = _html("", elem_id="banner")
                with gr.Column(elem_id="scroll"):
                    thread = _html("", elem_id="thread")
                    live = _html("", elem_id="live")
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

        opened = [thread, live, history, question, state]
        loaded = page.load(view.load, None, [*opened, new, attach, send, stop, banner, local], **hidden)
        begun = new.click(view.new, None, opened, **hidden)
        moved = history.navigate(view.navigate, None, opened, trigger_mode="multiple", **hidden)
        sent = gr.on(
            [question.submit, send.click],
            view.send,
            [question, state],
            opened,
            js="async (text, state) => [text, await impchat.sending(state)]",
            **hidden,
        )
        managed = history.manage(
            view.manage, state, [history, state], js="state => impchat.here(state)", trigger_mode="multiple", **hidden
        )
        stopped = stop.click(view.stop, state, state, js="state => impchat.here(state)", **hidden)
        followed = []
        for event in (loaded, begun, moved, sent):
            shown = event.then(None, state, None, js="state => impchat.show(state)")
            follow = shown.then(view.follow, state, [thread, live, history, state], trigger_mode="multiple", **hidden)
            follow.then(None, state, None, js="state => impchat.show(state, true)")
            followed.append(follow)
        for event in (managed, stopped):
            event.then(None, state, None, js="state => impchat.show(state)")
        for leave in (new.click, history.navigate):
            leave(None, None, None, cancels=followed)  # only this page's reading ends, the answer goes on
        attach.click(None, None, None, js="() => impchat.choose()")
    return page


def _html(value: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, **({"apply_default_css": False, "js_on_load": None} | options))
