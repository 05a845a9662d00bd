"""The open conversation, as the chat screen shows it.

In: what a person does: open, type, bring pictures, send, stop, edit, choose a version. Out: calls to a `Listener`, on
the event loop. What takes time happens in threads, one thing after the other, so that a question goes into the chat in
which it was typed; the core owns the answers, which go on when nobody listens.
This file does not know Flet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Protocol, TypeVar

from impchat import images, presentation, settings
from impchat.answer import Answer
from impchat.app import App
from impchat.chat import Attachment, Chat
from impchat.errors import ChatError, HistoryError
from impchat.images import Prepared, boxes
from impchat.messages import Encoding, Event, Failed, Finished, Message, Reading, Ready, Sampling, Text
from impchat.peers.servers import Server
from impchat_mobile.stream import follow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """The pictures that go with the next question, and how far the model is with them."""

    pictures: tuple[str, ...] = ()
    reading: bool = False
    percent: int | None = None
    ready: bool = False
    failed: Failed | None = None


@dataclass(slots=True)
class Edit:
    """An earlier question that is being put in other words, beside the draft, which stays as it is."""

    message: str
    pictures: tuple[str, ...]
    text: str  # typed so far, as it was when the conversation was left
    draft: str  # the text of the draft meanwhile
    new: dict[str, Prepared] = field(default_factory=dict)  # pictures that come to the history with the question


@dataclass(slots=True)
class Growing:
    """The answer that is being written."""

    answer: Answer
    text: str = ""
    reading: Reading | None = None
    stopping: bool = False


class Listener(Protocol):
    """Who shows the conversation. Called on the event loop."""

    def changed(self) -> None:
        """Another conversation is open, or its messages are others than before."""

    def grew(self) -> None:
        """`OpenConversation.growing` has more to show."""

    def drafted(self) -> None:
        """`OpenConversation.asked_about` has changed."""


@dataclass(slots=True)
class OpenConversation:
    """One person's open conversation. Its methods are called on the event loop and return when done."""

    app: App
    sampling: Callable[[], Sampling | None]  # what the person has chosen; None: the model's own
    listener: Listener | None = None
    title: str = ""
    messages: list[Message] = field(default_factory=list)
    versions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # message -> all versions of it, where several
    draft: Draft = field(default_factory=Draft)
    text: str = ""  # typed and not sent
    growing: Growing | None = None
    server: Server | None = None  # that answers in this conversation; None: the model here
    _chat: Chat | None = None
    _edits: dict[str, Edit] = field(default_factory=dict)  # conversation -> the question that is edited there
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _order: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by what changes the conversation or opens another

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
        """That the model of this conversation reads at most; 0: its server has not said so."""
        return self.app.remote(self.server).info.context_tokens if self.server else self.app.context_tokens

    @property
    def context_used(self) -> float:
        """Share of the context that the conversation takes, 0 to 1."""
        most = self.context_tokens
        return min(1.0, presentation.context_used(self.messages) / most) if most else 0.0

    @property
    def editing(self) -> Edit | None:
        return self._edits.get(self.conversation or "")

    @property
    def asked_about(self) -> Draft:
        """The pictures that go with what is being typed: a new question, or an earlier one that is edited."""
        return Draft(self.editing.pictures) if self.editing else self.draft

    # Opening

    async def open(self, conversation: str | None, server: Server | None = None) -> None:
        """Show this conversation, or a new one; what was typed in the one that was open is kept there. An answer that
        runs in it is followed from its beginning.

        Raises HistoryError "history.no_conversation"; then the one that was open stays."""
        async with self._order:
            chat = await _apart(lambda: self.app.chat(conversation, server=server))
            messages, versions, title = await _apart(self._read, chat)
            row = await _apart(self.app.history.conversation, conversation, settings.OWNER) if conversation else None
            runs = bool(messages) and messages[-1].state == "streaming"
            answer = await _apart(self.app.answer, messages[-1].uuid) if runs else None
            saved = None
            while saved != self.text:  # typed meanwhile
                saved = self.text
                await self._save()
            if self.editing:
                self.editing.text = self.text
            self.close()
            self.growing = None
            stays = self._chat is None or (conversation is not None and conversation == self.conversation)
            self._chat, self.server = chat, server
            self.messages, self.versions, self.title = messages, versions, title
            if self.editing:
                self.text = self.editing.text
            elif not (stays and self.text):  # what was typed before the first one was open belongs to it
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
        found = await _apart(self._read, chat)
        if chat.conversation == self.conversation:  # no other one was opened meanwhile
            self.messages, self.versions, self.title = found

    def _read(self, chat: Chat) -> tuple[list[Message], dict[str, tuple[str, ...]], str]:
        if chat.conversation is None:
            return [], {}, ""
        row, tree = self.app.history.tree(chat.conversation, settings.OWNER)
        below: dict[str | None, list[str]] = {}
        for message in tree:
            below.setdefault(message.parent, []).append(message.uuid)
        branch = chat.branch()
        versions = {m.uuid: tuple(below[m.parent]) for m in branch if len(below.get(m.parent, ())) > 1}
        return branch, versions, row.title

    def boxed(self, answer: Message) -> bytes | None:
        """The picture that `answer` speaks of with the boxes that it names; None: it names none. Takes time."""
        found = boxes.boxes(answer.text)
        # By uuid: by now the branch may have been read again, and the answer be a longer one.
        before = takewhile(lambda message: message.uuid != answer.uuid, self.messages)
        pictures = [name for message in before for name in message.images]
        if not (found and pictures):
            return None
        return boxes.draw(self.app.history.image_bytes(pictures[-1]), found)

    async def answer_by(self, server: Server | None) -> None:
        """Let another one answer from the next question on; None: the model here. What was said stays."""
        async with self._order:
            conversation = self.conversation
            self._chat = await _apart(lambda: self.app.chat(conversation, server=server))
            self.server = server
        self._tell("changed")

    # The draft

    async def keep(self) -> None:
        """Keep what is typed, so that it is there after a restart."""
        async with self._order:
            await self._save()

    async def _save(self) -> None:
        if self.editing or self._chat is None or not (self.text or self.conversation):
            return
        try:
            await _apart(self.chat.save_draft, self.text)
        except HistoryError as error:
            if error.code != "history.no_conversation":  # removed for good: there is no place for it
                raise

    async def attach(self, data: bytes, chat: Chat | None = None, place: int | None = None) -> str:
        """Add a picture to the next question, which the model reads at once, or to the one that is edited. Its name.
        `chat`: where it goes, if another one may be open by now. `place`: its index among the pictures; None: the end.

        Raises ImageError, ChatError "question.too_many_images"."""
        chat = chat or self.chat
        async with self._order:
            if edit := self._edits.get(chat.conversation or ""):
                return await self._attach_to(edit, data, place)
            attachment = await _apart(chat.attach, data, place)
            if chat.conversation == self.conversation:
                self._read_ahead(attachment)
            return attachment.image.sha256

    async def _attach_to(self, edit: Edit, data: bytes, place: int | None) -> str:
        prepared = await _apart(images.prepare, data)
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
            attachment = await _apart(self.chat.detach, picture)
            self._cancel("draft")
            if attachment:
                self._read_ahead(attachment)
            else:
                self.draft = Draft()
                self._tell("drafted")

    async def swap(self, picture: str, data: bytes) -> None:
        """Put a changed picture in the place of one of the draft."""
        place = self.place_of(picture)
        await self.detach(picture)
        await self.attach(data, place=place)

    def place_of(self, picture: str) -> int | None:
        """Its index among the pictures of what is being typed; None: it is not among them."""
        pictures = self.asked_about.pictures
        return pictures.index(picture) if picture in pictures else None

    def picture(self, name: str) -> bytes:
        """The bytes of a picture, also of one that was brought for an edited question. Takes time."""
        new = self.editing.new if self.editing else {}
        return new[name].data if name in new else self.app.history.image_bytes(name)

    def _read_ahead(self, attachment: Attachment) -> None:
        self.draft = Draft(attachment.pictures, reading=True)
        self._tell("drafted")

        def take(events: list[Event]) -> None:
            draft = self.draft
            for event in events:
                match event:
                    case Encoding():
                        draft = replace(draft, percent=0)
                    case Reading(done, total) if total:
                        draft = replace(draft, percent=100 * done // total)
                    case Ready():
                        draft = Draft(draft.pictures, ready=True)
                    case Failed():
                        draft = Draft(draft.pictures, failed=event)
                    case Finished():  # another picture took its place
                        return
            self.draft = draft
            self._tell("drafted")

        self._begin("draft", attachment.events, take)

    # Questions and answers

    async def send(self, text: str) -> None:
        """Ask, or ask the edited question anew. What is typed is gone if it is this text; it stays if this fails.

        Raises what `Chat.send` and `Chat.edit` raise."""
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
        """Begin to put an earlier question in other words; `send` asks it, `leave_edit` gives it up."""
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
        """Another answer beside this one. Raises what `Chat.regenerate` raises."""
        async with self._order:
            await self._ask(lambda chat: chat.regenerate(message, self.sampling()))

    async def choose(self, message: str, step: int) -> None:
        """Show the version of `message` that is `step` further."""
        async with self._order:
            versions = self.versions[message]
            place = (versions.index(message) + step) % len(versions)
            await _apart(self.chat.show, versions[place])
            await self.refresh()
        self._tell("changed")

    async def _ask(self, ask: Callable[[Chat], Answer]) -> None:
        answer = await _apart(ask, self.chat)
        await self.refresh()
        self._watch(answer)
        self._tell("changed")

    def stop(self) -> None:
        """End the running answer; what there is stays. Raises ChatError "answer.elsewhere"."""
        if self.growing:
            self.growing.stopping = True
            self.growing.answer.stop()

    def _watch(self, answer: Answer) -> None:
        growing = self.growing = Growing(answer)

        def take(events: list[Event]) -> None:
            for event in events:
                match event:
                    case Text(text):
                        growing.text += text
                    case Reading():
                        growing.reading = event
            if self.growing is growing:
                self._tell("grew")

        async def end() -> None:
            if self.growing is growing:
                self.growing = None
                await self.refresh()
                self._tell("changed")

        self._begin("answer", answer.events, take, end)

    # Within

    def _begin(
        self,
        name: str,
        events: Callable[[], Iterable[tuple[int, Event]]],
        take: Callable[[list[Event]], None],
        end: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._cancel(name)

        async def work() -> None:
            await follow(events, take)
            if end:
                await end()

        self._tasks[name] = asyncio.get_running_loop().create_task(work())

    def _cancel(self, name: str) -> None:
        if task := self._tasks.pop(name, None):
            task.cancel()

    async def settled(self) -> None:
        """Return when nothing is followed any more."""
        for task in list(self._tasks.values()):
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def close(self) -> None:
        """Listen no longer; answers go on."""
        for name in list(self._tasks):
            self._cancel(name)

    def _tell(self, what: str) -> None:
        if self.listener:
            getattr(self.listener, what)()


async def _apart(call: Callable[..., T], *values: Any) -> T:
    """The result of a call that waits for the disk."""
    return await asyncio.to_thread(call, *values)


def question_of(messages: Sequence[Message], answer: Message) -> Message | None:
    """The question that `answer` follows."""
    return next((message for message in messages if message.uuid == answer.parent), None)
