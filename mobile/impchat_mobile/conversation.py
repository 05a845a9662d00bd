"""The open conversation, as the chat screen shows it.

In: actions of the user: open, type, attach pictures, send, stop, edit, choose a version. Out: calls to a `Listener` on
the event loop. Blocking calls run on threads, one at a time, so that a question goes to the conversation in which it
was typed. The core owns the answers, which continue without a listener.
This file does not know Flet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from impchat import images, presentation, settings
from impchat.answer import Answer
from impchat.app import App
from impchat.chat import Chat
from impchat.deferred import Attachment
from impchat.errors import ChatError, HistoryError
from impchat.images import Prepared, boxes
from impchat.messages import Conversation, Failed, Finished, Message, Ready, Sampling
from impchat.peers.servers import Server
from impchat_mobile.stream import follow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """The pictures of the next question, and the progress of their prefill."""

    pictures: tuple[str, ...] = ()
    reading: bool = False
    percent: int | None = None
    ready: bool = False
    failed: Failed | None = None


@dataclass(slots=True)
class Edit:
    """An earlier question that is being edited. The draft is kept meanwhile."""

    message: str
    pictures: tuple[str, ...]
    text: str  # typed so far; updated when another conversation is opened
    draft: str  # the text of the draft, restored after the edit
    new: dict[str, Prepared] = field(default_factory=dict)  # pictures that are added to the history with the question


@dataclass(slots=True)
class Growing:
    """The answer that is being generated."""

    answer: Answer
    stopping: bool = False


class Listener(Protocol):
    """The view that shows the conversation. Called on the event loop."""

    def changed(self) -> None:
        """Another conversation is open, or its messages have changed."""

    def grew(self) -> None:
        """`OpenConversation.growing` has changed."""

    def drafted(self) -> None:
        """`OpenConversation.asked_about` has changed."""


@dataclass(slots=True)
class OpenConversation:
    """The conversation that the user has open. All methods are called on the event loop."""

    app: App
    sampling: Callable[[], Sampling | None]  # chosen by the user; None: the model's recommended values
    listener: Listener | None = None
    row: Conversation | None = None  # as last read from the history; None: it is not saved yet
    messages: list[Message] = field(default_factory=list)
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # message -> all its versions, if several
    draft: Draft = field(default_factory=Draft)
    text: str = ""  # typed but not sent
    growing: Growing | None = None
    server: Server | None = None  # answers in this conversation; None: the local model
    _chat: Chat | None = None
    _edits: dict[str, Edit] = field(default_factory=dict)  # conversation -> the question being edited in it
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)  # held while the conversation is changed or opened

    @property
    def conversation(self) -> str | None:
        return self._chat.conversation if self._chat else None

    @property
    def chat(self) -> Chat:
        if self._chat is None:
            self._chat = self.app.chat(server=self.server)
        return self._chat

    @property
    def demo(self) -> bool:
        """Whether the demo model of this device answers."""
        return self.app.demo and not self.server

    @property
    def context_tokens(self) -> int:
        """The context length of this conversation's model, in tokens; 0 if its server has not reported it."""
        return self.app.remote(self.server).info.context_tokens if self.server else self.app.context_tokens

    @property
    def context_used(self) -> float:
        """The fraction of the context that the conversation uses, 0 to 1."""
        most = self.context_tokens
        return min(1.0, presentation.context_used(self.messages) / most) if most else 0.0

    @property
    def editing(self) -> Edit | None:
        return self._edits.get(self.conversation or "")

    @property
    def asked_about(self) -> Draft:
        """The pictures of the question that is being typed: an edited one, or else the draft."""
        return Draft(self.editing.pictures) if self.editing else self.draft

    # Opening

    async def open(self, conversation: str | None, server: Server | None = None) -> None:
        """Show this conversation, or a new one if None. The text typed in the previous one is saved there. A running
        answer is followed from its beginning.

        Raises HistoryError "history.no_conversation"; the previous conversation then stays open."""
        async with self._order:
            chat = await _in_thread(lambda: self.app.chat(conversation, server=server))
            messages, versions, row = await _in_thread(self._read, chat)
            runs = bool(messages) and messages[-1].state == "streaming"
            answer = await _in_thread(self.app.answer, messages[-1].uuid) if runs else None
            saved = None
            while saved != self.text:  # repeat if the user typed meanwhile
                saved = self.text
                await self._save()
            if self.editing:
                self.editing.text = self.text
            self.close()
            self.growing = None
            is_same = self._chat is None or (conversation is not None and conversation == self.conversation)
            self._chat, self.server = chat, server
            self.messages, self.versions, self.row = messages, versions, row
            if self.editing:
                self.text = self.editing.text
            elif not (is_same and self.text):  # keep text typed before the first one was open
                self.text = row.draft if row else ""
            pictures = row.draft_images if row else ()
            self.draft = Draft(pictures, ready=bool(pictures))
            if answer:
                self._watch(answer)
        self._tell("changed")
        self._tell("drafted")

    async def refresh(self) -> None:
        """Read the shown branch again."""
        chat = self.chat
        found = await _in_thread(self._read, chat)
        if chat.conversation == self.conversation:  # no other conversation was opened meanwhile
            self.messages, self.versions, self.row = found

    def _read(self, chat: Chat) -> tuple[list[Message], dict[str, tuple[str, ...]], Conversation | None]:
        if chat.conversation is None:
            return [], {}, None
        row, tree = self.app.history.tree(chat.conversation, settings.OWNER)
        below: dict[str | None, list[str]] = {}
        for message in tree:
            below.setdefault(message.parent, []).append(message.uuid)
        branch = chat.branch()
        versions = {m.uuid: tuple(below[m.parent]) for m in branch if len(below.get(m.parent, ())) > 1}
        return branch, versions, row

    def boxed(self, answer: Message) -> bytes | None:
        """The picture that `answer` refers to, with the answer's boxes drawn; None if it has none. Blocks."""
        found = boxes.boxes(answer.text)
        # Compared by uuid: if the branch has been read again, the same answer may have more text.
        picture = presentation.boxed_picture(self.messages, answer.uuid) if found else None
        return boxes.draw(self.app.history.image_bytes(picture), found) if picture else None

    async def set_server(self, server: Server | None) -> None:
        """Choose the server for the following questions; None: the local model. The messages stay."""
        async with self._order:
            conversation = self.conversation
            self._chat = await _in_thread(lambda: self.app.chat(conversation, server=server))
            self.server = server
        self._tell("changed")

    # The draft

    async def keep(self) -> None:
        """Save the typed text, so that it survives a restart."""
        async with self._order:
            await self._save()

    async def _save(self) -> None:
        if self.editing or self._chat is None or not (self.text or self.conversation):
            return
        try:
            await _in_thread(self.chat.save_draft, self.text)
        except HistoryError as error:
            if error.code != "history.no_conversation":  # the conversation was deleted permanently
                raise

    async def read_typed(self) -> None:
        """Let the model read the words that are typed so far, so that little is left to read when they are sent."""
        if self._chat and not self.editing:
            await _in_thread(self._chat.read_typed, self.text)

    async def attach(self, data: bytes, chat: Chat | None = None, place: int | None = None) -> str:
        """Add a picture to the edited question, or else to the draft, whose prefill then starts. Returns its sha256.
        `chat`: where to add it, if another conversation may have been opened meanwhile. `place`: its index among the
        pictures; None: the end.

        Raises ImageError, ChatError "question.too_many_images"."""
        chat = chat or self.chat
        async with self._order:
            if edit := self._edits.get(chat.conversation or ""):
                return await self._attach_to(edit, data, place)
            attachment = await _in_thread(chat.attach, data, place)
            if chat.conversation == self.conversation:
                self._read_ahead(attachment)
            return attachment.image.sha256

    async def _attach_to(self, edit: Edit, data: bytes, place: int | None) -> str:
        prepared = await _in_thread(images.prepare, data)
        name, pictures = prepared.image.sha256, edit.pictures
        if name not in pictures:
            at = len(pictures) if place is None else place
            pictures = (*pictures[:at], name, *pictures[at:])
        if len(pictures) > settings.IMAGES_PER_MESSAGE:
            limit = settings.IMAGES_PER_MESSAGE
            raise ChatError("question.too_many_images", count=len(pictures), limit=limit)
        edit.new[name], edit.pictures = prepared, pictures
        self._tell("drafted")
        return name

    async def detach(self, picture: str) -> None:
        async with self._order:
            if edit := self.editing:
                edit.pictures = tuple(name for name in edit.pictures if name != picture)
                self._tell("drafted")
                return
            attachment = await _in_thread(self.chat.detach, picture)
            self._cancel("draft")
            if attachment:
                self._read_ahead(attachment)
            else:
                self.draft = Draft()
                self._tell("drafted")

    async def swap(self, picture: str, data: bytes) -> None:
        """Replace a picture of the question by a changed one."""
        place = self.place_of(picture)
        await self.detach(picture)
        await self.attach(data, place=place)

    def place_of(self, picture: str) -> int | None:
        """Its index among the pictures of what is being typed; None: it is not among them."""
        pictures = self.asked_about.pictures
        return pictures.index(picture) if picture in pictures else None

    def picture(self, name: str) -> bytes:
        """The bytes of a picture, which may be new in an edited question. Blocks."""
        new = self.editing.new if self.editing else {}
        return new[name].data if name in new else self.app.history.image_bytes(name)

    def _read_ahead(self, attachment: Attachment) -> None:
        self.draft = Draft(attachment.pictures, reading=True)
        self._tell("drafted")

        def update() -> None:
            progress = attachment.progress
            match progress.end:
                case None:
                    self.draft = Draft(attachment.pictures, reading=True, percent=progress.percent)
                case Ready():
                    self.draft = Draft(attachment.pictures, ready=True)
                case Failed() as error:
                    self.draft = Draft(attachment.pictures, failed=error)
                case Finished():  # another prefill replaced this one
                    return
            self._tell("drafted")

        self._begin("draft", attachment, update)

    # Questions and answers

    async def send(self, text: str) -> None:
        """Send a question with the pictures of the draft, or the edited question. If this succeeds and the typed text
        is still `text`, it is cleared.

        Raises as `Chat.send` and `Chat.edit`."""
        async with self._order:
            if edit := self.editing:
                await self._ask(lambda chat: self._ask_anew(chat, edit, text))
                del self._edits[self.conversation or ""]
                self.text = edit.draft
            else:
                await self._ask(lambda chat: chat.send(text, sampling=self.sampling()))
                self._cancel("draft")
                self.draft = Draft()
                if self.text == text:
                    self.text = ""
        self._tell("drafted")

    def _ask_anew(self, chat: Chat, edit: Edit, text: str) -> Answer:
        for name in edit.pictures:
            if name in edit.new:
                self.app.history.add_image(edit.new[name], settings.OWNER)
        return chat.edit(edit.message, text, edit.pictures, self.sampling())

    async def edit(self, message: Message) -> None:
        """Start editing an earlier question; `send` sends it, `leave_edit` cancels."""
        async with self._order:
            await self._save()
            draft = self.editing.draft if self.editing else self.text
            self._edits[message.conversation] = Edit(message.uuid, message.images, message.text, draft)
            self.text = message.text
        self._tell("drafted")

    async def leave_edit(self) -> None:
        async with self._order:
            if edit := self._edits.pop(self.conversation or "", None):
                self.text = edit.draft
        self._tell("drafted")

    async def regenerate(self, message: str) -> None:
        """Generate another version of this answer. Raises as `Chat.regenerate`."""
        async with self._order:
            await self._ask(lambda chat: chat.regenerate(message, self.sampling()))

    async def choose(self, message: str, step: int) -> None:
        """Show the version that is `step` after this version of `message`; after the last comes the first."""
        async with self._order:
            versions = self.versions[message]
            place = (versions.index(message) + step) % len(versions)
            await _in_thread(self.chat.show, versions[place])
            await self.refresh()
        self._tell("changed")

    async def _ask(self, ask: Callable[[Chat], Answer]) -> None:
        answer = await _in_thread(ask, self.chat)
        await self.refresh()
        self._watch(answer)
        self._tell("changed")

    def stop(self) -> None:
        """Stop the running answer; its text so far is kept. Raises ChatError "answer.elsewhere"."""
        if self.growing:
            self.growing.stopping = True
            self.growing.answer.stop()

    def _watch(self, answer: Answer) -> None:
        growing = self.growing = Growing(answer)

        def update() -> None:
            if self.growing is growing:
                self._tell("grew")

        async def end() -> None:
            if self.growing is growing:
                self.growing = None
                await self.refresh()
                self._tell("changed")

        self._begin("answer", answer, update, end)

    # Internals

    def _begin(
        self,
        name: str,
        source: Answer | Attachment,
        update: Callable[[], None],
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._cancel(name)

        async def work() -> None:
            await follow(source, update)
            if end:
                await end()

        self._tasks[name] = asyncio.get_running_loop().create_task(work())

    def _cancel(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def settled(self) -> None:
        """Wait until the running answer and prefill have ended."""
        for task in list(self._tasks.values()):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """Stop following events. Answers continue."""
        for name in list(self._tasks):
            self._cancel(name)

    def _tell(self, what: str) -> None:
        if self.listener:
            getattr(self.listener, what)()


async def _in_thread(call: Callable[..., T], *values: Any) -> T:
    """Run a blocking call on a thread and return its result."""
    return await asyncio.to_thread(call, *values)


def question_of(messages: Sequence[Message], answer: Message) -> Message | None:
    """The question that `answer` replies to; None if it is not in `messages`."""
    return next((message for message in messages if message.uuid == answer.parent), None)
