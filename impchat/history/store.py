"""The history: conversations with their message trees and pictures, in one SQLite file for all front ends.

In: questions, answers as they grow, prepared pictures, search queries. Out: the values of `messages`. Callers pass the
owner's name; data of another owner is treated as if it did not exist. Several threads and processes may use one file
at the same time.
This file does not know how answers are generated, nor how anything is shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from impchat import images, paths, settings
from impchat.errors import HistoryError
from impchat.history import mutations, queries, search
from impchat.history.database import Database
from impchat.history.image_files import ImageFiles
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, FinishReason, Image, Message, Role, State, Stats


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `message` and `role` are None if it is the conversation's title."""

    conversation: str
    title: str
    message: str | None
    role: Role | None
    snippet: str  # one line around the match
    created_utc: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture, and the latest question about it."""

    image: str  # sha256
    conversation: str
    title: str
    message: str  # the question
    created_utc: str


class History:
    """The history in the file `path`, created or migrated; pictures are in the folder `images` next to it.

    Opening marks the answers of processes that have died as "interrupted". A write waits `busy_timeout_s` for another
    process, then raises HistoryError "history.locked". Every method may raise "history.disk_full", "data.unwritable"
    and "history.broken"; saved data stays intact. Raises HistoryError "history.newer" for a file from a newer
    ImpChat."""

    def __init__(self, path: Path, *, busy_timeout_s: float = settings.BUSY_TIMEOUT_S) -> None:
        self._database = Database(path, busy_timeout_s)
        self._files = ImageFiles(path.parent / "images")
        try:
            self.mark_interrupted()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the file. It must not be used afterwards."""
        self._database.close()

    # Writing: conversations

    def create_conversation(self, owner: str, title: str = "") -> Conversation:
        """Create an empty conversation of `owner`."""
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
        """Change the given fields; None leaves a field unchanged. `leaf`: the last message of the shown branch.
        A picture that is removed from the draft and shown nowhere else is deleted.

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
        """Mark a conversation as deleted: it is no longer listed or found, but can be restored. Its KV state is removed
        at once."""
        self._set_deleted(uuid, owner, mutations.now())
        self._remove_state(uuid)

    def restore_conversation(self, uuid: str, owner: str) -> None:
        """Restore a deleted conversation."""
        self._set_deleted(uuid, owner, None)

    def purge_conversation(self, uuid: str, owner: str) -> None:
        """Remove a conversation permanently, with the pictures that no other conversation of `owner` shows."""
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            images = queries.images_of_conversation(db, key)
            db.execute("delete from conversations where id = ?", (key,))
            gone = mutations.forget_unshown(db, owner, images)
        self._remove_files(gone)
        self._remove_state(uuid)

    # Writing: pictures and messages

    def add_image(self, prepared: Prepared, owner: str) -> Image:
        """Store a picture, unless it is stored already, and give `owner` access to it."""
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
        """Save a question below the answer `parent`, or as a first message if `parent` is None.

        It becomes the end of the shown branch, and an untitled conversation takes its title from it. Unless
        `keep_draft`, the draft is cleared and its pictures that are shown nowhere else are deleted.
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
        """Save an empty answer below the question `parent`, in state "streaming", with this process as its writer.

        `model`: the id of the bundle. The answer becomes the end of the shown branch.
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
        """Save the whole text so far and the writer's heartbeat. A finished answer is left unchanged.

        Raises HistoryError "history.no_message" if its conversation has been purged."""
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
        """Save the end of an answer. A finished answer is returned unchanged. A conversation without a title, because
        its first question had no text, takes it from the answer.

        Raises HistoryError "history.no_message" if its conversation has been purged."""
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
        """Save a conversation from another history for its `owner`, with its messages (parents before their children)
        and all their pictures. If it exists already, the two are merged as `archive.import_zip` describes."""
        owner = conversation.owner
        with self._keeping(pictures), self._database.write() as db:
            for prepared in pictures:
                self._add_image(db, prepared, owner)
            merged = mutations.merge(db, conversation, messages)
            # The pictures of an imported draft that was older than the local one.
            gone = mutations.forget_unshown(db, owner, [prepared.image.sha256 for prepared in pictures])
        self._remove_files(gone)
        return merged

    def mark_interrupted(self) -> int:
        """Mark the streaming answers whose writer has died as "interrupted". Returns their number.

        A writer on this machine is dead once the system has released its lock. Locks of other machines on a shared disk
        may be invisible, so their writers count as dead after `settings.HEARTBEAT_DEAD_S` without a heartbeat."""
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
        """One conversation, even if deleted. Raises HistoryError "history.no_conversation"."""
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
        """The conversations of `owner`, optionally of one folder or tag: pinned ones on top, then by latest message.
        `deleted`: return only deleted ones instead of only the others."""
        with self._database.read() as db:
            return queries.conversations(db, owner, folder, tag, deleted, limit, offset)

    def count(self, owner: str, *, deleted: bool = False) -> int:
        """The number of conversations of `owner`. `deleted`: only deleted ones instead of only the others."""
        with self._database.read() as db:
            return queries.count(db, owner, deleted)

    def messages(self, conversation: str, owner: str) -> list[Message]:
        """All messages in order of creation. Raises HistoryError "history.no_conversation"."""
        with self._database.read() as db:
            return queries.messages(db, queries.conversation_id(db, conversation, owner))

    def tree(self, conversation: str, owner: str) -> tuple[Conversation, list[Message]]:
        """A conversation and its messages, read in one transaction. Raises HistoryError "history.no_conversation"."""
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
        """The `Image` of a stored picture. Does not check access: call `image_of` first.

        Raises HistoryError "history.no_image"."""
        with self._database.read() as db:
            return queries.image(db, sha256)

    def image_bytes(self, sha256: str) -> bytes:
        """The stored bytes of a picture. Does not check access: call `image_of` first.

        Raises HistoryError "history.no_image", or "history.image_missing" if its file is missing."""
        return self._files.read(self.image(sha256))

    def thumbnail(self, sha256: str) -> bytes:
        """The thumbnail of a stored picture (`images.thumbnail`), made by the first call and then kept next to the
        picture. Does not check access: call `image_of` first.

        Raises as `image_bytes`, and ImageError for a damaged file."""
        image = self.image(sha256)
        kept = self._files.read_thumbnail(image)
        if kept is not None:
            return kept
        made = images.thumbnail(self._files.read(image))
        with suppress(HistoryError), self._database.write() as db:
            queries.image(db, sha256)  # raises if the picture has been deleted meanwhile
            self._files.write_thumbnail(image, made)
        return made

    def image_of(self, owner: str, sha256: str) -> bool:
        """Whether `owner` has added this picture and has not purged it since."""
        with self._database.read() as db:
            return queries.is_owned(db, owner, sha256)

    def has_image(self, sha256: str) -> bool:
        """Whether this picture is stored, for any owner."""
        with self._database.read() as db:
            return db.execute("select 1 from images where sha256 = ?", (sha256,)).fetchone() is not None

    def has_conversation(self, uuid: str) -> bool:
        """Whether this conversation exists, of any owner, and is not deleted."""
        with self._database.read() as db:
            query = "select 1 from conversations where uuid = ? and deleted_utc is null"
            return db.execute(query, (uuid,)).fetchone() is not None

    def pictures(self, owner: str, limit: int = 200, offset: int = 0) -> list[Asked]:
        """The pictures that `owner` has asked about, each once, latest first, without deleted conversations."""
        with self._database.read() as db:
            found = queries.pictures(db, owner, limit, offset)
        return [Asked(**{name: row[name] for name in Asked.__slots__}) for row in found]

    def covers(self, owner: str, conversations: Sequence[str]) -> dict[str, str]:
        """Conversation -> sha256 of the first picture in its latest message that has pictures, for those of the given
        `conversations` that have one."""
        with self._database.read() as db:
            return {row["conversation"]: row["image"] for row in queries.covers(db, owner, conversations)}

    def counts(self, owner: str, conversations: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Conversation -> the number of its messages and of its pictures, on all branches, for the given
        `conversations` that exist."""
        with self._database.read() as db:
            found = queries.counts(db, owner, conversations)
            return {row["conversation"]: (row["messages"], row["pictures"]) for row in found}

    def search(self, owner: str, query: str, limit: int = 50) -> list[Hit]:
        """The messages that contain all words of `query`, latest first, without deleted conversations. Before them, the
        matching titles of conversations without a matching message. Words match as prefixes; any query is allowed."""
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

    # Internal

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
        """Context for a write that adds pictures: if it fails, their files are removed."""
        try:
            yield
        except BaseException:
            self._remove_files([prepared.image for prepared in pictures])
            raise

    def _add_image(self, db: sqlite3.Connection, prepared: Prepared, owner: str) -> None:
        image = prepared.image
        self._files.write(image, prepared.data)  # before the row, so that a row never refers to a missing file
        db.execute(
            "insert or ignore into images (sha256, width, height, mime, size_bytes) values (?, ?, ?, ?, ?)",
            (image.sha256, image.width, image.height, image.mime, image.size_bytes),
        )
        db.execute("insert or ignore into image_owners (owner, image) values (?, ?)", (owner, image.sha256))

    def _remove_state(self, uuid: str) -> None:
        """Remove the KV state that an engine may have saved for a conversation."""
        with suppress(OSError):
            (paths.kv_states_dir(self._database.path.parent) / paths.kv_state_name(uuid)).unlink(missing_ok=True)

    def _remove_files(self, images: Sequence[Image]) -> None:
        """Remove the files of those `images` that have no row. Errors are ignored: a leftover file does no harm."""
        if not images:
            return
        with suppress(HistoryError), self._database.write() as db:  # so that no process adds one meanwhile
            for image in images:
                if db.execute("select 1 from images where sha256 = ?", (image.sha256,)).fetchone() is None:
                    self._files.remove(image)
                    for embeddings in paths.embeddings_dir(self._database.path.parent).glob(f"{image.sha256}-*"):
                        embeddings.unlink(missing_ok=True)
