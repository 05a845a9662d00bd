"""The history: conversations with their message trees and pictures, in one SQLite file for all front ends.

In: questions, answers as they grow, prepared pictures, search queries. Out: the values of `messages`. Callers pass the
owner's name; data of another owner is treated as if it did not exist. Several threads and processes may use one file
at the same time.
This file does not know how answers are generated, nor how anything is shown.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from impchat import images, paths, settings
from impchat.errors import ChatError, HistoryError
from impchat.history import mutations, queries, removal, search
from impchat.history.database import MEMORY, Database
from impchat.history.image_files import ImageFiles, ImagesInMemory
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, Feedback, FinishReason, Image, Message, Role, State, Stats


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `message` and `role` are None if it is the conversation's title."""

    conversation: str
    title: str
    message: str | None
    role: Role | None
    snippet: str  # one line around the match
    created_utc: str
    marks: tuple[tuple[int, int], ...] = ()  # where the words are in `snippet`: (start, end), in order


@dataclass(frozen=True, slots=True)
class Asked:
    """A picture, and the latest question about it."""

    image: str  # sha256
    conversation: str
    title: str
    message: str  # the question
    created_utc: str


def _hit(row: sqlite3.Row, query: str) -> Hit:
    snippet = search.snippet(row["text"], query)
    marks = tuple(search.marks(snippet, query))
    return Hit(row["conversation"], row["title"], row["message"], row["role"], snippet, row["created_utc"], marks)


class History:
    """The history in the file `path`, created or migrated; pictures are in the folder `images` next to it. With `path`
    `database.MEMORY`, a history in memory, which leaves nothing on disk and is lost when it is closed.

    Opening marks the answers of processes that have died as "interrupted". A write waits `busy_timeout_s` for another
    process, then raises HistoryError "history.locked". Every method may raise "history.disk_full", "data.unwritable"
    and "history.broken"; saved data stays intact. Raises HistoryError "history.newer" for a file from a newer
    ImpChat."""

    def __init__(self, path: Path, *, busy_timeout_s: float = settings.BUSY_TIMEOUT_S) -> None:
        self._database = Database(path, busy_timeout_s)
        self._files = ImagesInMemory() if path == MEMORY else ImageFiles(path.parent / "images")
        self._on_purge: list[Callable[[str], None]] = []
        try:
            self.mark_interrupted()
            self._purge_messages()
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
        archived: bool | None = None,
        draft: str | None = None,
        draft_images: Sequence[str] | None = None,
        leaf: str | None = None,
    ) -> Conversation:
        """Change the given fields; None leaves a field unchanged. `folder`: "" for none. `tags`: all of them, in order.
        `leaf`: the last message of the shown branch. A picture that is removed from the draft and shown nowhere else is
        deleted.

        Raises HistoryError "history.no_conversation", "history.no_message" (leaf), "history.no_image" (draft)."""
        gone: list[Image] = []
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            if title is not None:
                mutations.set_title(db, key, title)
            columns = {
                "folder": None if folder is None else mutations.name_from(folder),
                "draft": None if draft is None else queries.clean(draft),
                "pinned": pinned,
                "archived": archived,
            }
            for column, value in columns.items():
                if value is not None:
                    db.execute(f"update conversations set {column} = ? where id = ?", (value, key))
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

    def fork_conversation(self, uuid: str, owner: str, message: str) -> Conversation:
        """Copy the branch down to `message` into a new conversation with the same title, folder and tags. Pictures are
        shared, not copied. An answer that is being written is copied as far as it got, as "interrupted".

        Raises HistoryError "history.no_conversation", "history.no_message"."""
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            branch = queries.branch(db, queries.message_id(db, message, key))
            return mutations.fork(db, queries.conversation(db, key), branch)

    def rename_folder(self, owner: str, folder: str, name: str) -> None:
        """Rename a folder. If `name` exists, it gets the conversations of both; with "" the folder is removed, and its
        conversations are kept outside any folder."""
        with self._database.write() as db:
            query = "update conversations set folder = ? where owner = ? and folder = ?"
            db.execute(query, (mutations.name_from(name), owner, queries.clean(folder)))

    def rename_tag(self, owner: str, tag: str, name: str) -> None:
        """Rename a tag in all conversations that have it. With "" it is removed from them."""
        with self._database.write() as db:
            mutations.rename_tag(db, owner, queries.clean(tag), name)

    def delete_conversation(self, uuid: str, owner: str) -> None:
        """Move a conversation to the bin: it is no longer listed or found, but can be restored. Its KV state is removed
        at once."""
        self._set_deleted(uuid, owner, mutations.now())
        self._remove_state(uuid)

    def restore_conversation(self, uuid: str, owner: str) -> None:
        """Take a conversation out of the bin, as it was."""
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
        for callback in self._on_purge:
            callback(uuid)

    def on_purge(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the uuid of each conversation that this process has removed permanently, right after.
        It must not raise."""
        self._on_purge.append(callback)

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

    def set_feedback(self, message: str, owner: str, feedback: Feedback | None) -> Message:
        """Save a person's opinion of an answer, in place of an earlier one; None removes it.

        Raises HistoryError "history.no_message", ChatError "chat.not_an_answer"."""
        with self._database.write() as db:
            if queries.message(db, message, owner).role != "assistant":
                raise ChatError("chat.not_an_answer")
            mutations.set_feedback(db, message, feedback)
            return queries.message(db, message, owner)

    def delete_message(self, message: str, owner: str) -> None:
        """Delete a question with all its answers, or one version of an answer with what follows it. The questions after
        a deleted question stay; they then follow the message before it. If the end of the shown branch is deleted, the
        newest branch of the message before is shown.

        `restore_message` undoes this until the next deletion in the conversation, until the bin is emptied, or until
        the history is opened `settings.UNDO_S` later; then the messages are removed permanently, with the pictures that
        nothing else of `owner` shows. Call `Chat.delete_message`, which refuses to delete a running answer.
        Raises HistoryError "history.no_message"."""
        with self._database.write() as db:
            found = queries.message(db, message, owner)
            key = queries.conversation_id(db, found.conversation, owner)
            gone = removal.delete(db, key, owner, message)
        self._remove_files(gone)
        self._remove_state(found.conversation)  # it contains the message

    def restore_message(self, conversation: str, owner: str, message: str) -> None:
        """Undo the deletion of `message`, with everything that was deleted with it, and show its branch.

        Raises HistoryError "history.no_conversation", "history.no_message" (it can no longer be undone)."""
        with self._database.write() as db:
            removal.restore(db, queries.conversation_id(db, conversation, owner), message)

    def empty_bin(self, owner: str) -> int:
        """Remove the deleted conversations and messages of `owner` permanently. Returns the number of conversations."""
        deleted = self.conversations(owner, deleted=True, limit=-1)
        for conversation in deleted:
            self.purge_conversation(conversation.uuid, owner)
        with self._database.write() as db:
            gone = removal.purge_before(db, mutations.now(), owner)
        self._remove_files(gone)
        return len(deleted)

    def merge(
        self, conversation: Conversation, messages: Sequence[Message], pictures: Sequence[Prepared]
    ) -> Conversation:
        """Save a conversation from another history for its `owner`, with its messages (parents before their children)
        and all their pictures. If it exists already, the two are merged as `archive.import_zip` describes."""
        owner = conversation.owner
        with self._keeping(pictures), self._database.write() as db:
            for prepared in pictures:
                self._add_image(db, prepared, owner)
            removal.restore_any(db, conversation.uuid, owner, {message.uuid for message in messages})
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
        archived: bool | None = False,
        deleted: bool = False,
        limit: int = 200,
        offset: int = 0,
    ) -> list[Conversation]:
        """A page of the conversations of `owner`: pinned ones on top, then by latest message.

        `folder`, `tag`: only those in it; folder "" means in none. `archived`: only archived ones, only the others, or
        None for both. `deleted`: the bin instead, the latest deletion first, whether archived or not."""
        with self._database.read() as db:
            return queries.conversations(db, owner, folder, tag, archived, deleted, limit, offset)

    def folders(self, owner: str, archived: bool = False) -> dict[str, int]:
        """Folder -> number of conversations in it, by name. Counts what `conversations` lists with this `archived`: a
        folder exists as long as it has a conversation there."""
        with self._database.read() as db:
            return queries.folders(db, owner, archived)

    def tags(self, owner: str, archived: bool = False) -> dict[str, int]:
        """Tag -> number of conversations that have it, by name. Counts as `folders` does."""
        with self._database.read() as db:
            return queries.tags(db, owner, archived)

    def latest_change(self, owner: str) -> int:
        """The number of the latest change of any conversation of `owner`; 0 if there was none."""
        with self._database.read() as db:
            return queries.latest_change(db, owner)

    def changes_since(self, owner: str, number: int) -> tuple[int, list[str]]:
        """The number of the latest change, and the uuids of the conversations of `owner` that any process has changed
        since change `number`, each once. Includes deleted and purged ones.

        A change is anything but the text of a growing answer: messages, titles, tags, drafts and so on. Begin with
        `latest_change`, then pass the number that the previous call returned. Costs one look into an index, so that it
        can be called every second."""
        with self._database.read() as db:
            return queries.changes_since(db, owner, number)

    def count(self, owner: str, *, archived: bool | None = False, deleted: bool = False) -> int:
        """The number of conversations that `conversations` lists, on all pages."""
        with self._database.read() as db:
            return queries.count(db, owner, archived, deleted)

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

    def pictures(self, owner: str, limit: int = 200, offset: int = 0, query: str = "") -> list[Asked]:
        """The pictures that `owner` has asked about, each once, latest first, without deleted conversations. `query`:
        only those about which a question or an answer contains all its words, or whose conversation's title does; the
        question returned is then the latest of these. A question without a picture is about the pictures before it."""
        match = search.match_query(queries.clean(query))
        with self._database.read() as db:
            if match is None:
                found = queries.pictures(db, owner, limit, offset)
            else:
                found = queries.pictures_about(db, owner, match, limit, offset)
        return [Asked(**{name: row[name] for name in Asked.__slots__}) for row in found]

    def questions_about(self, owner: str, sha256: str, limit: int = 20) -> list[Asked]:
        """The questions of `owner` with this picture, latest first, without deleted conversations."""
        with self._database.read() as db:
            found = queries.questions_about(db, owner, sha256, limit)
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
        return [_hit(row, query) for row in found[:limit]]

    # Internal

    def _set_deleted(self, uuid: str, owner: str, when: str | None) -> None:
        with self._database.write() as db:
            key = queries.conversation_id(db, uuid, owner)
            db.execute("update conversations set deleted_utc = ? where id = ?", (when, key))

    def _purge_messages(self) -> None:
        """Remove messages whose deletion can no longer be undone."""
        before = mutations.utc(datetime.now(UTC) - timedelta(seconds=settings.UNDO_S))
        with self._database.write() as db:
            gone = removal.purge_before(db, before)
        self._remove_files(gone)

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
        if self._database.path == MEMORY:
            return
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
                    if self._database.path == MEMORY:
                        continue
                    for embeddings in paths.embeddings_dir(self._database.path.parent).glob(f"{image.sha256}-*"):
                        embeddings.unlink(missing_ok=True)
