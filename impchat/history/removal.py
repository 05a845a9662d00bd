"""Messages that are deleted: hidden at once, restored by an undo, or removed permanently.

In: an open transaction and the key of a conversation. Out: changed rows. A deleted message keeps its row until the next
deletion in its conversation makes the deletion permanent, so at most one deletion in a conversation can be undone.
This file does not know conversations in the bin, nor picture files.
"""

from __future__ import annotations

import json
import sqlite3

from impchat.errors import HistoryError
from impchat.history import mutations, queries
from impchat.messages import Image


def delete(db: sqlite3.Connection, conversation: int, owner: str, message: str) -> list[Image]:
    """See `History.delete_message`. Returns the pictures of the previous deletion that have no owner left.

    Raises HistoryError "history.no_message"."""
    key = queries.message_id(db, message, conversation)
    gone = purge(db, conversation, owner)
    row = db.execute("select role, parent from messages where id = ?", (key,)).fetchone()
    if row["role"] == "user":
        answers = [child["id"] for child in db.execute("select id from messages where parent = ?", (key,))]
        deleted = [key, *answers]
        db.execute(  # the questions that followed
            "update messages set moved_from = parent, parent = ? where parent in (select value from json_each(?))",
            (row["parent"], json.dumps(answers)),
        )
    else:
        deleted = _below(db, key)
    leaf = db.execute("select leaf from conversations where id = ?", (conversation,)).fetchone()["leaf"]
    rows = json.dumps(deleted)
    db.execute(
        "update messages set deleted_utc = ? where id in (select value from json_each(?))", (mutations.now(), rows)
    )
    db.execute("delete from message_search where rowid in (select value from json_each(?))", (rows,))
    if leaf in deleted:
        _show(db, conversation, row["parent"])
    return gone


def restore(db: sqlite3.Connection, conversation: int, message: str) -> None:
    """See `History.restore_message`. Raises HistoryError "history.no_message"."""
    deleted = _deleted(db, conversation)
    found = db.execute(
        "select id from messages where uuid = ? and conversation = ?", (queries.clean(message), conversation)
    ).fetchone()
    if found is None or found["id"] not in deleted:
        raise HistoryError("history.no_message", message=message)
    rows = json.dumps(deleted)
    db.execute(
        "update messages set parent = moved_from, moved_from = null"
        " where moved_from in (select value from json_each(?))",
        (rows,),
    )
    db.execute("update messages set deleted_utc = null where id in (select value from json_each(?))", (rows,))
    for key in deleted:
        mutations.index(db, key)
    _show(db, conversation, deleted[0])


def restore_any(db: sqlite3.Connection, conversation: str, owner: str, messages: set[str]) -> None:
    """Undo the deletion in the conversation with this uuid, if it exists, and if it deleted one of `messages`."""
    found = db.execute(
        "select conversation, uuid from messages where deleted_utc is not null and conversation ="
        " (select id from conversations where uuid = ? and owner = ?)",
        (conversation, owner),
    ).fetchall()
    for row in found:
        if row["uuid"] in messages:
            restore(db, row["conversation"], row["uuid"])
            return


def purge(db: sqlite3.Connection, conversation: int, owner: str) -> list[Image]:
    """Remove the deleted messages of a conversation permanently. Returns their pictures that have no owner left."""
    rows = json.dumps(_deleted(db, conversation))
    found = db.execute("select image from message_images where message in (select value from json_each(?))", (rows,))
    images = {row["image"] for row in found}
    db.execute("delete from messages where id in (select value from json_each(?))", (rows,))
    return mutations.forget_unshown(db, owner, images)


def purge_before(db: sqlite3.Connection, utc: str, owner: str | None = None) -> list[Image]:
    """`purge` in all conversations of `owner` (None: of all owners) whose messages were deleted before `utc`."""
    found = db.execute(
        "select distinct conversations.id, owner from messages join conversations on conversations.id = conversation"
        " where messages.deleted_utc < ? and (? is null or owner = ?)",
        (utc, owner, owner),
    ).fetchall()
    return [image for row in found for image in purge(db, row["id"], row["owner"])]


def _deleted(db: sqlite3.Connection, conversation: int) -> list[int]:
    """The keys of the deleted messages, parents before their children."""
    found = db.execute(
        "select id from messages where conversation = ? and deleted_utc is not null order by id", (conversation,)
    )
    return [row["id"] for row in found]


def _below(db: sqlite3.Connection, message: int) -> list[int]:
    """A message and all that follow it."""
    found = db.execute(
        "with recursive down (id) as (select ? union all"
        " select messages.id from messages join down on messages.parent = down.id) select id from down",
        (message,),
    )
    return [row["id"] for row in found]


def _show(db: sqlite3.Connection, conversation: int, message: int | None) -> None:
    """Make the end of the branch through `message` (None: of the whole conversation) the shown one, following the
    newest reply at each step."""
    at: int | None = message
    while True:
        newest = db.execute(
            "select max(id) from messages where conversation = ? and parent is ? and deleted_utc is null",
            (conversation, at),
        ).fetchone()[0]
        if newest is None:
            break
        at = newest
    db.execute("update conversations set leaf = ? where id = ?", (at, conversation))
