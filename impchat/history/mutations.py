"""Changes to rows of the history, each within the caller's transaction.

In: an open transaction, keys and values. Out: changed rows, with the search index kept in step.
This file does not know picture files, access rights or the order of writes; `store` does.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4, uuid5

from impchat import settings
from impchat.errors import HistoryError
from impchat.history import queries, search
from impchat.messages import Conversation, Feedback, Image, Message, Role, State


def insert_conversation(db: sqlite3.Connection, new: Conversation) -> int:
    """Insert an empty conversation with the uuid, owner and times of `new`. Returns its key."""
    key = db.execute(
        "insert into conversations (uuid, owner, title, created_utc, updated_utc) values (?, ?, '', ?, ?)",
        (new.uuid, new.owner, new.created_utc, new.updated_utc),
    ).lastrowid
    assert key is not None
    return key


def add_message(
    db: sqlite3.Connection, conversation: int, parent: int | None, role: Role, text: str, state: State
) -> tuple[str, int]:
    """Insert a message and make it the end of the shown branch. Returns its uuid and its key. Takes the conversation
    out of the bin and the archive, because it is in use again."""
    above = db.execute("select role from messages where id = ?", (parent,)).fetchone()
    assert role != (above["role"] if above else "assistant"), "below an answer, or nothing, comes a question"
    uuid, created = str(uuid4()), now()
    message = db.execute(
        "insert into messages (uuid, conversation, parent, role, text, state, created_utc)"
        " values (?, ?, ?, ?, ?, ?, ?)",
        (uuid, conversation, parent, role, text, state, created),
    ).lastrowid
    assert message is not None
    db.execute(
        "update conversations set leaf = ?, updated_utc = ?, deleted_utc = null, archived = 0 where id = ?",
        (message, created, conversation),
    )
    return uuid, message


def set_title(db: sqlite3.Connection, conversation: int, title: str) -> None:
    title = " ".join(queries.clean(title).split())
    db.execute("update conversations set title = ? where id = ?", (title, conversation))
    db.execute("delete from title_search where rowid = ?", (conversation,))
    db.execute("insert into title_search (rowid, text) values (?, ?)", (conversation, search.index_text(title)))


# The first sentence, but no mere "Yes." or "1."; Chinese needs fewer characters and no space after its marks.
_SENTENCE = re.compile(r".{4,}?[。！？]|.{12,}?(?:[.!?](?=\s)|\n)|.+", re.DOTALL)


def title_by_answer(db: sqlite3.Connection, message: int, text: str) -> None:
    """If the conversation of the answer `message` has no title, take one from the first sentence of `text`."""
    row = db.execute(
        "select conversations.id from conversations join messages on conversation = conversations.id"
        " where messages.id = ? and title = ''",
        (message,),
    ).fetchone()
    if row and (sentence := _SENTENCE.match(text.strip())):
        set_title(db, row["id"], title_from(sentence[0]))


def name_from(text: str) -> str:
    """The name of a folder or tag from what a person typed: one line without extra spaces."""
    return " ".join(queries.clean(text).split())


def set_tags(db: sqlite3.Connection, conversation: int, tags: Sequence[str]) -> None:
    db.execute("delete from conversation_tags where conversation = ?", (conversation,))
    names = [name for name in dict.fromkeys(map(name_from, tags)) if name]
    db.executemany(
        "insert into conversation_tags (conversation, place, tag) values (?, ?, ?)",
        [(conversation, place, name) for place, name in enumerate(names)],
    )


def rename_tag(db: sqlite3.Connection, owner: str, tag: str, name: str) -> None:
    """See `History.rename_tag`."""
    tagged = db.execute(
        "select conversation from conversation_tags join conversations on id = conversation"
        " where owner = ? and tag = ?",
        (owner, tag),
    )
    for (conversation,) in tagged.fetchall():
        tags = queries.conversation(db, conversation).tags
        set_tags(db, conversation, [name if other == tag else other for other in tags])


def set_images(
    db: sqlite3.Connection,
    table: Literal["message_images", "draft_images"],
    of: int,
    images: Sequence[str],
    owner: str,
) -> None:
    column = {"message_images": "message", "draft_images": "conversation"}[table]
    db.execute(f"delete from {table} where {column} = ?", (of,))
    for place, sha256 in enumerate(images):
        if not queries.is_owned(db, owner, sha256):
            raise HistoryError("history.no_image", image=sha256)
        db.execute(f"insert into {table} ({column}, place, image) values (?, ?, ?)", (of, place, sha256))


def forget_unshown(db: sqlite3.Connection, owner: str, images: Iterable[str]) -> list[Image]:
    """Remove the ownership of those `images` that no conversation of `owner` shows.

    Returns the images that have no owner left: their rows are deleted, and their files may be."""
    gone = []
    for sha256 in images:
        if queries.is_shown(db, owner, sha256):
            continue
        db.execute("delete from image_owners where owner = ? and image = ?", (owner, sha256))
        if db.execute("select 1 from image_owners where image = ?", (sha256,)).fetchone() is None:
            gone.append(queries.image(db, sha256))
            db.execute("delete from images where sha256 = ?", (sha256,))
    return gone


def end(db: sqlite3.Connection, message: int) -> None:
    """Finish an answer: delete its writer's row and index its text for search."""
    db.execute("delete from writers where message = ?", (message,))
    index(db, message)


def index(db: sqlite3.Connection, message: int) -> None:
    text = db.execute("select text from messages where id = ?", (message,)).fetchone()["text"]
    db.execute("delete from message_search where rowid = ?", (message,))
    db.execute("insert into message_search (rowid, text) values (?, ?)", (message, search.index_text(text)))


def fork(db: sqlite3.Connection, conversation: Conversation, branch: Sequence[Message]) -> Conversation:
    """See `History.fork_conversation`."""
    created = now()
    conversation = replace(
        conversation, created_utc=created, updated_utc=created, pinned=False, archived=False, deleted_utc=None,
        draft="", draft_images=(), leaf=branch[-1].uuid,
    )  # fmt: skip
    branch = [replace(m, state="interrupted" if m.state == "streaming" else m.state) for m in branch]
    return merge(db, *_under_new_uuids(conversation, branch))


def set_feedback(db: sqlite3.Connection, message: str, feedback: Feedback | None) -> None:
    value = to_json(asdict(feedback) if feedback else None)
    db.execute("update messages set feedback = ? where uuid = ?", (value, message))


def merge(db: sqlite3.Connection, conversation: Conversation, messages: Sequence[Message]) -> Conversation:
    """See `History.merge`. The rows of the pictures must exist already."""
    there = db.execute("select * from conversations where uuid = ?", (conversation.uuid,)).fetchone()
    key: int | None = there["id"] if there and there["owner"] == conversation.owner else None
    if (there and key is None) or any(_is_taken(db, message, key) for message in messages):
        conversation, messages, key = *_under_new_uuids(conversation, messages), None
    is_news = key is None or conversation.updated_utc > there["updated_utc"]
    if key is None:
        key = insert_conversation(db, conversation)
    names: dict[str | None, str] = {}  # imported uuid -> local uuid, if they differ
    for message in messages:
        message = replace(message, parent=names.get(message.parent, message.parent))
        if twin := _merge_message(db, key, message, conversation.owner):
            names[message.uuid] = twin
        if message.feedback and (is_news or not queries.message(db, twin or message.uuid).feedback):
            set_feedback(db, twin or message.uuid, message.feedback)
    if is_news:
        set_title(db, key, conversation.title)
        set_tags(db, key, conversation.tags)
        set_images(db, "draft_images", key, conversation.draft_images, conversation.owner)
        shown = names.get(conversation.leaf, conversation.leaf)
        leaf = queries.message_id(db, shown, key) if shown else None
        db.execute(
            "update conversations set folder = ?, pinned = ?, archived = ?, draft = ?, leaf = ?, updated_utc = ?"
            " where id = ?",
            (name_from(conversation.folder), conversation.pinned, conversation.archived,
             queries.clean(conversation.draft), leaf, conversation.updated_utc, key),
        )  # fmt: skip
    db.execute("update conversations set deleted_utc = null where id = ?", (key,))
    return queries.conversation(db, key)


def _merge_message(db: sqlite3.Connection, conversation: int, there: Message, owner: str) -> str | None:
    """Merge one imported message. Returns the uuid that it has here if that is a different one, else None."""
    try:
        here = queries.message(db, there.uuid)
    except HistoryError:
        for sibling in queries.siblings_below(db, conversation, there.parent):
            if sibling.text == there.text and _twin(sibling) == there.uuid:  # the other side renamed our message
                return sibling.uuid
        _insert_message(db, conversation, there, owner)
        return None
    open_here, open_there = (side.state in ("streaming", "interrupted") for side in (here, there))
    if (open_there and here.text.startswith(there.text)) or (here.text == there.text and not open_here):
        return None
    if open_here and there.text.startswith(here.text):
        _replace_message(db, there, owner)
        return None
    twin = replace(there, uuid=_twin(there))  # different texts: keep both
    return _merge_message(db, conversation, twin, owner) or twin.uuid


def _twin(message: Message) -> str:
    """A new uuid for a message whose own uuid is used by another text. Every history derives the same one."""
    return str(uuid5(UUID(message.uuid), message.text))


def _replace_message(db: sqlite3.Connection, message: Message, owner: str) -> None:
    """Overwrite an earlier state of `message`."""
    db.execute(
        "update messages set text = ?, state = ?, finish_reason = ?, model = ?, tokens = ?, stats = ?,"
        " dropped_turns = ?, error = ? where uuid = ?",
        (*_content(message), message.uuid),
    )
    key = db.execute("select id from messages where uuid = ?", (message.uuid,)).fetchone()["id"]
    set_images(db, "message_images", key, message.images, owner)
    end(db, key)


def _content(message: Message) -> tuple[object, ...]:
    """The column values that the end of an answer sets."""
    return (
        queries.clean(message.text),
        message.state,
        message.finish_reason,
        message.model,
        to_json(message.tokens),
        to_json(asdict(message.stats) if message.stats else None),
        message.dropped_turns,
        to_json(asdict(message.error) if message.error else None),
    )


def _is_taken(db: sqlite3.Connection, message: Message, conversation: int | None) -> bool:
    """Whether the uuid belongs to a message of another conversation or role."""
    found = db.execute("select conversation, role from messages where uuid = ?", (message.uuid,)).fetchone()
    return found is not None and tuple(found) != (conversation, message.role)


def _under_new_uuids(conversation: Conversation, messages: Sequence[Message]) -> tuple[Conversation, Sequence[Message]]:
    new: dict[str | None, str] = {message.uuid: str(uuid4()) for message in messages}
    uuid = str(uuid4())
    renamed = [replace(m, uuid=new[m.uuid], parent=new.get(m.parent), conversation=uuid) for m in messages]
    return replace(conversation, uuid=uuid, leaf=new.get(conversation.leaf)), renamed


def _insert_message(db: sqlite3.Connection, conversation: int, message: Message, owner: str) -> None:
    key = db.execute(
        "insert into messages (uuid, conversation, parent, role, created_utc, text, state, finish_reason, model,"
        " tokens, stats, dropped_turns, error) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.uuid,
            conversation,
            queries.message_id(db, message.parent, conversation) if message.parent else None,
            message.role,
            message.created_utc,
            *_content(message),
        ),
    ).lastrowid
    assert key is not None
    set_images(db, "message_images", key, message.images, owner)
    index(db, key)


def to_json(value: object) -> str | None:
    """`value` as JSON for a column; None stays None."""
    return None if value is None else queries.clean(json.dumps(value, ensure_ascii=False, default=str))


def title_from(text: str) -> str:
    """A conversation's title from `text`: one line of at most `settings.TITLE_CHARS` characters."""
    line = " ".join(text.split())
    return line if len(line) <= settings.TITLE_CHARS else line[: settings.TITLE_CHARS - 1].rstrip() + "…"


_clock = threading.Lock()
_last = datetime.min.replace(tzinfo=UTC)  # the latest time returned
_STEP, _SLIGHT = timedelta(milliseconds=1), timedelta(seconds=1)


def now() -> str:
    """The current time to the millisecond, strictly increasing so that rows sort in order of creation. A clock set back
    by more than a second is followed."""
    global _last
    with _clock:
        moment = datetime.now(UTC)
        if moment - _STEP < _last < moment + _SLIGHT:
            moment = _last + _STEP
        _last = moment
    return utc(moment)


def utc(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
