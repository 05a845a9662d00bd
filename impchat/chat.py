"""One conversation: attach pictures, send, regenerate, edit, continue, delete, fork, choose a branch.

In: the user's text and picture files. Out: answers that the core owns (`impchat.answer`), and prompts for the engine.
The engine encodes and reads pictures as soon as they are attached, while the user types.
This file does not know which engine runs, how the history stores data, or who shows the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from impchat import images, settings
from impchat.answer import Answer, Answers
from impchat.deferred import Attachment, DeferredHandle
from impchat.engines import Engine, Handle, check_sampling
from impchat.errors import ChatError, HistoryError
from impchat.history.store import History
from impchat.messages import Conversation, Event, Finished, Image, Message, Picture, Prompt, Sampling, Text, Turn
from impchat.prompts import complete_words


@dataclass(slots=True)
class Core:
    """State that all Chats of one App share."""

    history: History
    answers: Answers
    opened: Callable[[], Future[Engine]]  # starts loading the engine at the first call; returns at once
    model: str  # the id stored with each answer
    system: str
    reads_typed: Callable[[], bool]  # whether the user wants questions to be read while they are typed
    drafts: threading.Lock = field(default_factory=threading.Lock)  # held while a draft or `prefills` changes
    prefills: dict[str, Attachment] = field(default_factory=dict)  # conversation uuid -> its running prefill


class Chat:
    """An owner's view of one conversation. Cheap to create, so a front end may create one per request: all share the
    running answer and the draft. All methods may be called from any thread.

    Raises HistoryError "history.no_conversation" if the conversation does not exist or belongs to another owner."""

    def __init__(self, core: Core, conversation: str | None, owner: str) -> None:
        if conversation is not None:
            core.history.conversation(conversation, owner)
        self._core = core
        self._history = core.history
        self._owner = owner
        self._conversation = conversation
        self._creating = threading.Lock()

    @property
    def conversation(self) -> str | None:
        """The uuid; None until the first send, attach or draft creates the row."""
        return self._conversation

    def _row(self) -> Conversation:
        with self._creating:
            if self._conversation is None:
                row = self._history.create_conversation(self._owner)
                self._conversation = row.uuid
                return row
        return self._history.conversation(self._conversation, self._owner)

    def branch(self) -> list[Message]:
        """The messages of the shown branch, oldest first."""
        return self._history.branch(self._conversation, self._owner) if self._conversation else []

    def show(self, message: str) -> None:
        """Show the branch through `message`, following the newest reply at each step to its end."""
        at = self._message(message)
        latest_child = {m.parent: m for m in self._history.messages(at.conversation, self._owner)}
        while at.uuid in latest_child:
            at = latest_child[at.uuid]
        self._history.update_conversation(at.conversation, self._owner, leaf=at.uuid)

    def _message(self, uuid: str) -> Message:
        message = self._history.message(uuid, self._owner)
        if message.conversation != self._conversation:
            raise HistoryError("history.no_message", message=uuid)
        return message

    # The draft

    def save_draft(self, text: str) -> None:
        """Save text that is typed but not yet sent, so that it survives a restart."""
        self._history.update_conversation(self._row().uuid, self._owner, draft=text)

    def read_typed(self, text: str) -> None:
        """Let the engine read the complete words of `text`, which the user is typing, after the pictures of the draft.
        Stores nothing, and does nothing while the model is loading, while an answer is running in this conversation, or
        if a server answers: words that were not sent do not leave this machine."""
        core, words = self._core, complete_words(text[: settings.QUESTION_CHARS])
        if (
            not core.reads_typed()
            or not words
            or self._conversation is None
            or core.answers.running(self._conversation)
        ):
            return
        opened = core.opened()
        if opened.done() and not opened.exception() and not opened.result().info.server:
            row = self._row()
            opened.result().prefill(self._prompt(row.uuid, row.leaf, row.draft_images, words))

    def attach(self, data: bytes, place: int | None = None) -> Attachment:
        """Check and store a picture, add it to the draft, and start a background prefill of the draft. `place`: its
        index among the draft's pictures; None: the end. A picture that is in the draft already stays where it is.

        A running prefill of this draft is cancelled; the new one covers all pictures and reuses what is in the cache.
        Raises ImageError for an unusable file, ChatError "question.too_many_images"."""
        prepared = images.prepare(data)
        with self._core.drafts:
            row = self._row()
            image = self._history.add_image(prepared, self._owner)
            pictures = row.draft_images
            if image.sha256 not in pictures:
                at = len(pictures) if place is None else place
                pictures = (*pictures[:at], image.sha256, *pictures[at:])
            _check_count(pictures)
            row = self._history.update_conversation(row.uuid, self._owner, draft_images=pictures)
            return self._read_ahead(row, image)

    def detach(self, sha256: str) -> Attachment | None:
        """Remove a picture from the draft. Returns the new prefill if other pictures remain, else None."""
        with self._core.drafts:
            row = self._row()
            rest = tuple(sha for sha in row.draft_images if sha != sha256)
            row = self._history.update_conversation(row.uuid, self._owner, draft_images=rest)
            if rest:
                return self._read_ahead(row, self._history.image(rest[-1]))
            if earlier := self._core.prefills.get(row.uuid):
                earlier.cancel()
            return None

    def _read_ahead(self, row: Conversation, image: Image) -> Attachment:
        core = self._core
        wait_for: list[Callable[[], object]] = []
        if running := core.answers.running(row.uuid):  # its text precedes the picture in the prompt
            wait_for.append(running.wait)
        if earlier := core.prefills.get(row.uuid):
            earlier.cancel()
            if earlier.core is core:
                wait_for.append(earlier.settled.wait)

        def prompt() -> Prompt:
            return self._prompt(row.uuid, row.leaf, row.draft_images)

        handle = DeferredHandle(core.opened, prompt, lambda engine, prompt: engine.prefill(prompt), wait_for=wait_for)
        attachment = core.prefills[row.uuid] = Attachment(core, image, row.draft_images, row.leaf, handle)

        def done(attachment: Attachment) -> None:
            with core.drafts:
                if core.prefills.get(row.uuid) is attachment:
                    del core.prefills[row.uuid]

        threading.Thread(target=attachment.work, args=(done,), name="prefill", daemon=True).start()
        return attachment

    # Questions and answers

    def send(self, text: str, images: Sequence[str] | None = None, sampling: Sampling | None = None) -> Answer:
        """Send a question and return its answer. `images`: sha256 of stored pictures; None: those of the draft.
        `sampling` None: the model's recommended values.

        On return the question and the row of its answer are in the history; the answer may not have started yet. A
        deleted conversation is restored.
        Raises ChatError "question.empty", "question.too_long", "question.too_many_images", "chat.busy" (an answer is
        running in this conversation), SettingsError for a sampling value out of range, HistoryError."""
        row = self._row() if images is None and self._conversation else None
        pictures = tuple(images) if images is not None else row.draft_images if row else ()
        self._check(text, pictures, sampling)
        row = row or self._row()
        with self._core.answers.turn(row.uuid):
            parent = self._ended_leaf(row.uuid)
            question = self._history.add_question(row.uuid, self._owner, parent=parent, text=text, images=pictures)
            return self._answer(question, sampling, draft=(pictures, parent))

    def edit(
        self, message: str, text: str, images: Sequence[str | bytes] | None = None, sampling: Sampling | None = None
    ) -> Answer:
        """Ask an earlier question in other words or about other pictures: adds a sibling of `message` and answers it.
        `images`: sha256 of stored pictures and contents of new picture files, in order; None: those of `message`. The
        old branch and the draft are kept. Raises as `send`, and ImageError for an unusable file."""
        old = self._message(message)
        if old.role != "user":
            raise ChatError("chat.not_a_question")
        given = old.images if images is None else tuple(images)
        self._check(text, given, sampling)
        with self._core.answers.turn(old.conversation):
            pictures = self._stored(given)
            question = self._history.add_question(
                old.conversation, self._owner, parent=old.parent, text=text, images=pictures, keep_draft=True
            )
            return self._answer(question, sampling)

    def regenerate(self, message: str, sampling: Sampling | None = None) -> Answer:
        """Generate another answer to a question. `message` is the question or one of its answers. Raises as `send`."""
        question = self._message(message)
        if question.role == "assistant":
            assert question.parent, "an answer follows a question"
            question = self._message(question.parent)
        if sampling:
            check_sampling(sampling)
        with self._core.answers.turn(question.conversation):
            return self._answer(question, sampling)

    def continue_answer(self, message: str, sampling: Sampling | None = None) -> Answer:
        """Continue an answer that was cut off by its maximum length, a stop, an error or a crash. Adds another version
        of the answer, which begins with the text so far; the version that was cut off is kept. An answer without text
        is generated anew. Raises as `send`, and ChatError "chat.not_an_answer"."""
        begun = self._message(message)
        if begun.role != "assistant":
            raise ChatError("chat.not_an_answer")
        assert begun.parent, "an answer follows a question"
        if sampling:
            check_sampling(sampling)
        with self._core.answers.turn(begun.conversation):
            begun = self._ended(message)
            return self._answer(self._message(str(begun.parent)), sampling, begun=begun if begun.text else None)

    # Other changes

    def delete_message(self, message: str) -> None:
        """Delete a question with its answers, or one version of an answer, as `History.delete_message` describes.
        Raises ChatError "chat.busy" if an answer is running in this conversation."""
        row = self._message(message)
        with self._core.answers.turn(row.conversation):
            for other in self._history.messages(row.conversation, self._owner):
                if other.state == "streaming":
                    self._ended(other.uuid)
            self._history.delete_message(message, self._owner)

    def restore_message(self, message: str) -> None:
        """Undo the latest `delete_message` of this conversation. Raises HistoryError "history.no_message" if it was not
        the deletion of `message`, or can no longer be undone; ChatError "chat.busy"."""
        if self._conversation is None:
            raise HistoryError("history.no_message", message=message)
        with self._core.answers.turn(self._conversation):
            self._history.restore_message(self._conversation, self._owner, message)

    def fork(self, message: str) -> Chat:
        """A new conversation with a copy of the branch down to `message`. If that is a question, `regenerate` answers
        it."""
        row = self._message(message)
        copy = self._history.fork_conversation(row.conversation, self._owner, message)
        return Chat(self._core, copy.uuid, self._owner)

    def _stored(self, given: Sequence[str | bytes]) -> tuple[str, ...]:
        """The hashes of pictures, of which new ones are stored. Raises ImageError, and then stores none."""
        prepared = [images.prepare(image) if isinstance(image, bytes) else image for image in given]
        return tuple(
            image if isinstance(image, str) else self._history.add_image(image, self._owner).sha256
            for image in prepared
        )

    def _ended(self, answer: str) -> Message:
        """An answer that has ended. Raises ChatError "chat.busy" if another process is writing it."""
        if self._history.message(answer, self._owner).state == "streaming":
            self._history.mark_interrupted()
        row = self._history.message(answer, self._owner)
        if row.state == "streaming":
            ours = self._core.answers.find(answer)  # a full disk hides its end
            if not ours or ours.state == "streaming":
                raise ChatError("chat.busy")
            row = ours.snapshot()
        return row

    def _check(self, text: str, pictures: Sequence[str | bytes], sampling: Sampling | None) -> None:
        if not text.strip() and not pictures:
            raise ChatError("question.empty")
        if len(text) > settings.QUESTION_CHARS:
            raise ChatError("question.too_long", chars=len(text), limit=settings.QUESTION_CHARS)
        _check_count(pictures)
        for image in pictures:
            if isinstance(image, str) and not self._history.image_of(self._owner, image):
                raise HistoryError("history.no_image", image=image)
        if sampling:
            check_sampling(sampling)

    def _ended_leaf(self, conversation: str) -> str | None:
        """The message that the next question follows. Raises ChatError "chat.busy" if another process writes it."""
        leaf = self._history.conversation(conversation, self._owner).leaf
        if leaf and self._ended(leaf).role == "user":
            # Its process died before the answer had a row.
            lost = self._history.start_answer(conversation, self._owner, parent=leaf, model=self._core.model)
            leaf = self._history.finish_answer(lost.uuid, text="", state="interrupted").uuid
        return leaf

    def _answer(
        self,
        question: Message,
        sampling: Sampling | None,
        draft: tuple[tuple[str, ...], str | None] | None = None,
        begun: Message | None = None,
    ) -> Answer:
        """Start the answer to `question`. `draft`: the pictures and the parent that the question had as a draft. A
        prefill of exactly these on this engine is joined; any other is cancelled. `begun`: an answer to continue."""
        core, joined, wait_for = self._core, None, []
        with core.drafts:
            if prefill := core.prefills.get(question.conversation):
                if prefill.core is core and (prefill.pictures, prefill.leaf) == draft:
                    joined = prefill
                else:
                    prefill.cancel()
                    if prefill.core is core:
                        wait_for.append(prefill.settled.wait)
        row = self._history.start_answer(question.conversation, self._owner, parent=question.uuid, model=core.model)
        handle: Handle = DeferredHandle(
            core.opened,
            lambda: self._prompt(question.conversation, begun.uuid if begun else question.uuid),
            lambda engine, prompt: engine.start(prompt, sampling or engine.info.sampling),
            wait_for=wait_for,
            joined=joined,
        )
        if begun:
            self._history.flush_answer(row.uuid, begun.text)
            tokens = begun.tokens if begun.model == core.model else None
            handle = _Continued(handle, Text(begun.text, tokens or ()))
        return core.answers.start(row, handle)

    # Prompts

    def _prompt(
        self, conversation: str, leaf: str | None, attached: tuple[str, ...] | None = None, typed: str = ""
    ) -> Prompt:
        """The prompt for the branch that ends with `leaf`. If `attached` is given, an open user turn with these
        pictures and the words `typed` follows."""
        branch = self._history.branch(conversation, self._owner, leaf) if leaf else []
        turns: list[Turn] = []
        for m in branch:
            if m.role == "user":
                add_question(turns, m.text, self._pictures(m.images))
            elif m.text:  # an answer that failed before its first word adds no turn
                turns.append(Turn("assistant", m.text, tokens=m.tokens if m.model == self._core.model else None))
        if attached is not None:
            add_question(turns, typed, self._pictures(attached))
        return Prompt(self._core.system, tuple(turns), key=conversation, open_turn=attached is not None)

    def _pictures(self, shas: Sequence[str]) -> tuple[Picture, ...]:
        return tuple(Picture(sha, self._history.image_bytes(sha)) for sha in shas)


class _Continued:
    """A handle whose answer begins with text that exists already."""

    def __init__(self, handle: Handle, begun: Text) -> None:
        self._handle = handle
        self._begun = begun
        self.stop = handle.stop

    def events(self) -> Iterator[Event]:
        yield self._begun
        for event in self._handle.events():
            if isinstance(event, Finished):  # the ids of the whole answer are known only if those of both parts are
                known = self._begun.tokens and event.tokens
                event = replace(event, tokens=self._begun.tokens + event.tokens if known else ())
            yield event


def add_question(turns: list[Turn], text: str, pictures: tuple[Picture, ...]) -> None:
    """Add a user turn. It is merged into an unanswered last question, because roles must alternate in a prompt."""
    if turns and turns[-1].role == "user":
        last = turns.pop()
        text = "\n".join(t for t in (last.text, text) if t)
        pictures = last.pictures + pictures
    turns.append(Turn("user", text, pictures))


def _check_count(pictures: Sequence[str | bytes]) -> None:
    if len(pictures) > settings.IMAGES_PER_MESSAGE:
        raise ChatError("question.too_many_images", count=len(pictures), limit=settings.IMAGES_PER_MESSAGE)
