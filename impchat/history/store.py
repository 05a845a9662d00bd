"""The history: conversations with their message trees and pictures, in one SQLite file for all front ends.

In: questions, answers as they grow, prepared pictures, words to look for. Out: the values of `messages`. Everything a
person reads or changes is asked for with the owner's name, and what belongs to somebody else is told apart by nothing
from what does not exist. Several threads and several processes may use one file at once.
This file does not know how answers are made nor how anything is shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from impchat import settings
from impchat.errors import HistoryError
from impchat.history import mutations, queries, search
from impchat.history.database import Database
from impchat.history.image_files import ImageFiles
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, FinishReason, Image, Message, Role, State, Stats


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a search found its words. `message` and `role` None: in the conversation's title."""

    conversation: str
    title: str
    message: str | None
    role: Role | None
    snippet: str  # one line around the words found
    created_utc: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture, and where it was asked about last."""

    image: str  # sha256
    conversation: str
    title: str
    message: str  # the question
    created_utc: str


class History:
    """The history in the file `path`, made or brought up to date; pictures lie in `images` beside it.

    Answers that were being written by a process that has died are marked "interrupted". A write waits
    `busy_timeout_s` for another process, then raises HistoryError "history.locked". Every method may raise
    "history.disk_full", "data.unwritable" and "history.broken"; what was saved before stays whole.
    Raises HistoryError "history.newer" for a file that a newer ImpChat made."""

    def __init__(self, path: Path, *, busy_timeout_s: float = settings.BUSY_TIMEOUT_S) -> None:
        self._database = Database(path, busy_timeout_s)
        self._files = ImageFiles(path.parent / "images")
        try:
            self.mark_interrupted()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file. No method may be called afterwards."""
        self._database.close()

    # Writing: conversations

    def create_conversation(self, owner: str, title: str = "") -> Conversation:
        """A new, empty conversation of `owner`."""
        now = mutations.now()
        new = Conversation(str(uuid4()), owner, title, created_utc=now, updated_utc=now)
        with self._database.write() as db:
            key = mutations.insert_conversation(db, new)
            mutations.set_title(db, key, title)
            return queries.conversation(db, key)

    def update_conversation(
        self,
        uuid: str,
        owner: str,
        *,
        title: str | None = None,
        folder: str | None = None,
        tags: Sequence[str] | None = None,
        pinned: bool | None = None,
        draft: str | None = None,
        draft_images: Sequence[str] | None = None,
        leaf: str | None = None,
    ) -> Conversation:
        """Change what is given and leave the rest. `leaf` is the message at which the shown branch ends.
        A picture that leaves the draft and is shown nowhere else is forgotten.

        Raises HistoryError "history.no_conversation", "history.no_message" (leaf), "history.no_image" (draft)."""
        gone: list[Image] = []
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            if title is not None:
                mutations.set_title(db, key, title)
            for column, value in (("folder", folder), ("draft", draft)):
                if value is not None:
                    db.execute(f"update conversations set {column} = ? where id = ?", (queries.clean(value), key))
            if pinned is not None:
                db.execute("update conversations set pinned = ? where id = ?", (pinned, key))
            if leaf is not None:
                db.execute("update conversations set leaf = ? where id = ?", (queries.message_id(db, leaf, key), key))
            if tags is not None:
                mutations.set_tags(db, key, tags)
            if draft_images is not None:
                before = queries.conversation(db, key).draft_images
                mutations.set_images(db, "draft_images", key, draft_images, owner)
                gone = mutations.forget_unshown(db, owner, set(before) - set(draft_images))
            after = queries.conversation(db, key)
        self._remove_files(gone)
        return after

    def delete_conversation(self, uuid: str, owner: str) -> None:
        """Move it to the deleted ones: no longer listed or found, but nothing is lost."""
        self._set_deleted(uuid, owner, mutations.now())

    def restore_conversation(self, uuid: str, owner: str) -> None:
        """Bring a deleted conversation back."""
        self._set_deleted(uuid, owner, None)

    def purge_conversation(self, uuid: str, owner: str) -> None:
        """Remove it for good, with the pictures that no other conversation of its owner shows."""
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            images = queries.images_of_conversation(db, key)
            db.execute("delete from conversations where id = ?", (key,))
            gone = mutations.forget_unshown(db, owner, images)
        self._remove_files(gone)

    # Writing: pictures and messages

    def add_image(self, prepared: Prepared, owner: str) -> Image:
        """Keep a picture, once however often it is given; from now on `owner` may see it."""
        with self._keeping([prepared]), self._database.write() as db:
            self._add_image(db, prepared, owner)
        return prepared.image

    def add_question(
        self,
        conversation: str,
        owner: str,
        *,
        parent: str | None,
        text: str,
        images: Sequence[str] = (),
        keep_draft: bool = False,
    ) -> Message:
        """Save a question below the answer `parent`, or as a first one where that is None.

        The shown branch ends at it, an untitled conversation takes its title from it, and the draft is empty again,
        unless it is another text that is to be kept; pictures of the draft that were not sent are forgotten.
        Raises HistoryError "history.no_conversation", "history.no_message" (parent), "history.no_image"."""
        text = queries.clean(text)
        gone: list[Image] = []
        with self._database.write() as db:
            key = queries.conversation_id(db, conversation, owner)
            place = queries.message_id(db, parent, key) if parent else None
            uuid, message = mutations.add_message(db, key, place, "user", text, "done")
            mutations.set_images(db, "message_images", message, images, owner)
            mutations.index(db, message)
            before = queries.conversation(db, key)
            if not before.title:
                mutations.set_title(db, key, mutations.title_from(text))
            if not keep_draft:
                db.execute("update conversations set draft = '' where id = ?", (key,))
                db.execute("delete from draft_images where conversation = ?", (key,))
                gone = mutations.forget_unshown(db, owner, before.draft_images)
            question = queries.message(db, uuid, owner)
        self._remove_files(gone)
        return question

    def start_answer(self, conversation: str, owner: str, *, parent: str, model: str) -> Message:
        """Save an empty answer below the question `parent`, in state "streaming": this process will write it.

        `model` is the id of the bundle. The shown branch ends at it.
        Raises HistoryError "history.no_conversation" or "history.no_message"."""
        with self._database.write() as db:
            key = queries.conversation_id(db, conversation, owner)
            uuid, message = mutations.add_message(
                db, key, queries.message_id(db, parent, key), "assistant", "", "streaming"
            )
            db.execute("update messages set model = ? where id = ?", (model, message))
            self._set_heartbeat(db, message)
            return queries.message(db, uuid, owner)

    def flush_answer(self, uuid: str, text: str) -> None:
        """Save the whole text so far, and that its writer lives. A finished answer stays as it is.

        Raises HistoryError "history.no_message" where its conversation has been purged."""
        with self._database.write() as db:
            message, open_end = queries.writable(db, uuid)
            if open_end:
                text = queries.clean(text)
                db.execute("update messages set text = ?, state = 'streaming' where id = ?", (text, message))
                self._set_heartbeat(db, message)

    def finish_answer(
        self,
        uuid: str,
        *,
        text: str,
        state: State,
        finish_reason: FinishReason | None = None,
        stats: Stats | None = None,
        tokens: Sequence[int] | None = None,
        dropped_turns: int = 0,
        error: Failed | None = None,
    ) -> Message:
        """Save the end of an answer. The first end stands: a finished answer is given back as it is. A conversation
        without a title, whose first question was a picture alone, takes it from the answer.

        Raises HistoryError "history.no_message" where its conversation has been purged."""
        with self._database.write() as db:
            message, open_end = queries.writable(db, uuid)
            if open_end:
                db.execute(
                    "update messages set text = ?, state = ?, finish_reason = ?, stats = ?, tokens = ?,"
                    " dropped_turns = ?, error = ? where id = ?",
                    (
                        queries.clean(text),
                        state,
                        finish_reason,
                        mutations.to_json(asdict(stats) if stats else None),
                        mutations.to_json(tokens if tokens is None else list(tokens)),
                        dropped_turns,
                        mutations.to_json(asdict(error) if error else None),
                        message,
                    ),
                )
                mutations.end(db, message)
                mutations.title_by_answer(db, message, queries.clean(text))
            return queries.message(db, uuid)

    def merge(
        self, conversation: Conversation, messages: Sequence[Message], pictures: Sequence[Prepared]
    ) -> Conversation:
        """Save a conversation from elsewhere, for its `owner`, with its messages (parents before their children) and
        all pictures they show. See `portability.import_zip` for what happens where it is here already."""
        owner = conversation.owner
        with self._keeping(pictures), self._database.write() as db:
            for prepared in pictures:
                self._add_image(db, prepared, owner)
            merged = mutations.merge(db, conversation, messages)
            # Those of a draft that was older than the one here.
            gone = mutations.forget_unshown(db, owner, [prepared.image.sha256 for prepared in pictures])
        self._remove_files(gone)
        return merged

    def mark_interrupted(self) -> int:
        """Mark the streaming answers whose writer has died as "interrupted"; how many there were.

        A writer of this machine is dead when the system has released its lock. Locks of another machine on a shared
        disk may not be seen here: its writer counts as dead after `settings.HEARTBEAT_DEAD_S` of silence."""
        silent_since = mutations.utc(datetime.now(UTC) - timedelta(seconds=settings.HEARTBEAT_DEAD_S))
        with self._database.write_after_deaths() as (db, living):
            self._files.sweep()
            streaming = db.execute(
                "select messages.id, lock, host, heartbeat_utc from messages"
                " left join writers on writers.message = messages.id where state = 'streaming'"
            ).fetchall()
            dead = [
                row["id"]
                for row in streaming
                if row["lock"] not in living
                and (row["host"] in (None, self._database.host) or row["heartbeat_utc"] < silent_since)
            ]
            for message in dead:
                db.execute("update messages set state = 'interrupted' where id = ?", (message,))
                mutations.end(db, message)
        return len(dead)

    # Reading

    def conversation(self, uuid: str, owner: str) -> Conversation:
        """One conversation, a deleted one too. Raises HistoryError "history.no_conversation"."""
        with self._database.read() as db:
            return queries.conversation(db, queries.conversation_id(db, uuid, owner))

    def conversations(
        self,
        owner: str,
        *,
        folder: str | None = None,
        tag: str | None = None,
        deleted: bool = False,
        limit: int = 200,
        offset: int = 0,
    ) -> list[Conversation]:
        """The conversations of `owner`, pinned ones on top, the latest message first; of one folder or tag if given.
        Either those that are not deleted or those that are."""
        with self._database.read() as db:
            return queries.conversations(db, owner, folder, tag, deleted, limit, offset)

    def messages(self, conversation: str, owner: str) -> list[Message]:
        """The whole tree, in the order in which it grew. Raises HistoryError "history.no_conversation"."""
        with self._database.read() as db:
            return queries.messages(db, queries.conversation_id(db, conversation, owner))

    def tree(self, conversation: str, owner: str) -> tuple[Conversation, list[Message]]:
        """A conversation and its messages at one moment. Raises HistoryError "history.no_conversation"."""
        with self._database.read() as db:
            key = queries.conversation_id(db, conversation, owner)
            return queries.conversation(db, key), queries.messages(db, key)

    def branch(self, conversation: str, owner: str, leaf: str | None = None) -> list[Message]:
        """The messages from the first one down to `leaf`, by default the end of the shown branch.

        Raises HistoryError "history.no_conversation" or "history.no_message"."""
        with self._database.read() as db:
            key = queries.conversation_id(db, conversation, owner)
            end = leaf or queries.conversation(db, key).leaf
            return queries.branch(db, queries.message_id(db, end, key)) if end else []

    def siblings(self, message_uuid: str, owner: str) -> list[Message]:
        """The versions of one message, itself included, oldest first. Raises HistoryError "history.no_message"."""
        with self._database.read() as db:
            return queries.siblings(db, queries.message(db, message_uuid, owner).uuid)

    def message(self, uuid: str, owner: str) -> Message:
        """One message. Raises HistoryError "history.no_message"."""
        with self._database.read() as db:
            return queries.message(db, uuid, owner)

    def image(self, sha256: str) -> Image:
        """What is known of a stored picture. Ask `image_of` first who may see it.

        Raises HistoryError "history.no_image"."""
        with self._database.read() as db:
            return queries.image(db, sha256)

    def image_bytes(self, sha256: str) -> bytes:
        """The stored bytes of a picture. Ask `image_of` first who may see it.

        Raises HistoryError "history.no_image", or "history.image_missing" where its file is gone."""
        return self._files.read(self.image(sha256))

    def image_of(self, owner: str, sha256: str) -> bool:
        """Whether `owner` has given this picture, and has not purged it since."""
        with self._database.read() as db:
            return queries.is_owned(db, owner, sha256)

    def pictures(self, owner: str, limit: int = 200, offset: int = 0) -> list[Asked]:
        """All pictures that `owner` has asked about, each once, the latest first; nothing deleted."""
        with self._database.read() as db:
            found = queries.pictures(db, owner, limit, offset)
        return [Asked(**{name: row[name] for name in Asked.__slots__}) for row in found]

    def covers(self, owner: str) -> dict[str, str]:
        """Conversation -> sha256 of the picture that was asked about last in it."""
        with self._database.read() as db:
            return {row["conversation"]: row["image"] for row in queries.covers(db, owner)}

    def search(self, owner: str, query: str, limit: int = 50) -> list[Hit]:
        """Where all words of `query` are, the latest first; nothing deleted. A title counts where no message of its
        conversation is found, and comes first. Words may be cut short at their end; every query is allowed."""
        match = search.match_query(queries.clean(query))
        if match is None:
            return []
        with self._database.read() as db:
            found = queries.search_messages(db, owner, match, limit)
            inside = {row["conversation"] for row in found}
            titles = queries.search_titles(db, owner, match, limit)
            found = [row for row in titles if row["conversation"] not in inside] + found
        return [
            Hit(row["conversation"], row["title"], row["message"], row["role"], search.snippet(row["text"], query),
                row["created_utc"])
            for row in found[:limit]
        ]  # fmt: skip

    # Within

    def _set_deleted(self, uuid: str, owner: str, when: str | None) -> None:
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            db.execute("update conversations set deleted_utc = ? where id = ?", (when, key))

    def _set_heartbeat(self, db: sqlite3.Connection, message: int) -> None:
        db.execute(
            "insert or replace into writers (message, lock, host, pid, heartbeat_utc) values (?, ?, ?, ?, ?)",
            (message, self._database.writer, self._database.host, self._database.pid, mutations.now()),
        )

    @contextmanager
    def _keeping(self, pictures: Sequence[Prepared]) -> Iterator[None]:
        """Around a write that adds pictures: where it fails, their files go again."""
        try:
            yield
        except BaseException:
            self._remove_files([prepared.image for prepared in pictures])
            raise

    def _add_image(self, db: sqlite3.Connection, prepared: Prepared, owner: str) -> None:
        image = prepared.image
        self._files.write(image, prepared.data)  # before the row, which then never names a missing file
        db.execute(
            "insert or ignore into images (sha256, width, height, mime, size_bytes) values (?, ?, ?, ?, ?)",
            (image.sha256, image.width, image.height, image.mime, image.size_bytes),
        )
        db.execute("insert or ignore into image_owners (owner, image) values (?, ?)", (owner, image.sha256))

    def _remove_files(self, images: Sequence[Image]) -> None:
        """Remove the files of those `images` that have no row; a file too many does no harm, so that errors pass."""
        if not images:
            return
        with suppress(HistoryError), self._database.write() as db:  # alone, so that nobody adds one of them meanwhile
            for image in images:
                if db.execute("select 1 from images where sha256 = ?", (image.sha256,)).fetchone() is None:
                    self._files.remove(image)
