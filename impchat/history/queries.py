"""Rows of the history -> values. Every function reads within the caller's transaction.

In: an open transaction and the identifier of a row. Out: the values of `messages`, or a HistoryError that says what
does not exist. This file does not write.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from impchat.errors import HistoryError
from impchat.messages import Conversation, Failed, Feedback, Image, Message, Stats

_CONVERSATION = """
    select c.*,
        (select uuid from messages where id = c.leaf) as leaf_uuid,
        (select json_group_array(tag) from
            (select tag from conversation_tags where conversation = c.id order by place)) as tags,
        (select json_group_array(image) from
            (select image from draft_images where conversation = c.id order by place)) as draft_images
    from conversations c"""

_MESSAGE = """
    select m.*, c.uuid as conversation_uuid, p.uuid as parent_uuid,
        (select json_group_array(image) from
            (select image from message_images where message = m.id order by place)) as images
    from messages m join conversations c on c.id = m.conversation left join messages p on p.id = m.parent"""


def clean(text: str) -> str:
    """`text` with unpaired surrogates replaced by "?": SQLite rejects them (a broken file name in a shell has some)."""
    return text.encode("utf-8", "replace").decode("utf-8")


def conversation_id(db: sqlite3.Connection, uuid: str, owner: str) -> int:
    """The key of a conversation. Raises HistoryError "history.no_conversation", even if another owner has it."""
    row = db.execute("select id from conversations where uuid = ? and owner = ?", (clean(uuid), owner)).fetchone()
    if row is None:
        raise HistoryError("history.no_conversation", conversation=uuid)
    return int(row["id"])


def conversation(db: sqlite3.Connection, key: int) -> Conversation:
    """The conversation with this key."""
    return _conversation(db.execute(f"{_CONVERSATION} where c.id = ?", (key,)).fetchone())


def conversations(
    db: sqlite3.Connection,
    owner: str,
    folder: str | None,
    tag: str | None,
    archived: bool | None,
    deleted: bool,
    limit: int,
    offset: int,
) -> list[Conversation]:
    """See `History.conversations`."""
    folder, tag = (None if name is None else clean(name) for name in (folder, tag))
    if deleted:
        which, order = "deleted_utc is not null", "deleted_utc desc"
    else:  # conditions that the index conversations_listed serves
        which = "deleted_utc is null" + ("" if archived is None else " and archived = :archived")
        order = "pinned desc, updated_utc desc"
    found = db.execute(
        f"{_CONVERSATION} where owner = :owner and {which}"
        " and (:folder is null or folder = :folder)"
        " and (:tag is null or exists (select 1 from conversation_tags where conversation = c.id and tag = :tag))"
        f" order by {order}, c.id desc limit :limit offset :offset",
        {"owner": owner, "archived": archived, "folder": folder, "tag": tag, "limit": limit, "offset": offset},
    )
    return [_conversation(row) for row in found]


def folders(db: sqlite3.Connection, owner: str, archived: bool) -> dict[str, int]:
    """See `History.folders`."""
    found = db.execute(
        "select folder, count(*) from conversations where owner = ? and archived = ? and deleted_utc is null"
        " and folder != '' group by folder",
        (owner, archived),
    )
    return dict(sorted(map(tuple, found), key=_by_name))


def tags(db: sqlite3.Connection, owner: str, archived: bool) -> dict[str, int]:
    """See `History.tags`."""
    found = db.execute(
        "select tag, count(*) from conversation_tags join conversations c on c.id = conversation"
        " where owner = ? and archived = ? and deleted_utc is null group by tag",
        (owner, archived),
    )
    return dict(sorted(map(tuple, found), key=_by_name))


def _by_name(counted: tuple[str, int]) -> tuple[str, str]:
    return counted[0].casefold(), counted[0]


def changes_since(db: sqlite3.Connection, owner: str, number: int) -> tuple[int, list[str]]:
    """See `History.changes_since`."""
    found = db.execute(
        "select conversation, number from changes where owner = ? and number > ? order by number", (owner, number)
    ).fetchall()
    return (found[-1]["number"] if found else number), [row["conversation"] for row in found]


def latest_change(db: sqlite3.Connection, owner: str) -> int:
    """See `History.latest_change`."""
    return int(db.execute("select coalesce(max(number), 0) from changes where owner = ?", (owner,)).fetchone()[0])


def count(db: sqlite3.Connection, owner: str, archived: bool | None, deleted: bool) -> int:
    """See `History.count`."""
    which = "deleted_utc is not null" if deleted else "deleted_utc is null"
    found = db.execute(
        f"select count(*) from conversations where owner = :owner and {which}"
        " and (:archived is null or archived = :archived)",
        {"owner": owner, "archived": None if deleted else archived},
    )
    return int(found.fetchone()[0])


def message(db: sqlite3.Connection, uuid: str, owner: str | None = None) -> Message:
    """One message, which must be `owner`'s unless that is None. Raises HistoryError "history.no_message"."""
    row = db.execute(
        f"{_MESSAGE} where m.uuid = :uuid and m.deleted_utc is null and (:owner is null or c.owner = :owner)",
        {"uuid": clean(uuid), "owner": owner},
    ).fetchone()
    if row is None:
        raise HistoryError("history.no_message", message=uuid)
    return _message(row)


def message_id(db: sqlite3.Connection, uuid: str, conversation: int) -> int:
    """The key of a message of this conversation. Raises HistoryError "history.no_message"."""
    row = db.execute(
        "select id from messages where uuid = ? and conversation = ? and deleted_utc is null",
        (clean(uuid), conversation),
    ).fetchone()
    if row is None:
        raise HistoryError("history.no_message", message=uuid)
    return int(row["id"])


def writable(db: sqlite3.Connection, uuid: str) -> tuple[int, bool]:
    """The key of an answer, and whether it is still open (streaming or interrupted). Raises HistoryError
    "history.no_message"."""
    row = db.execute("select id, state from messages where uuid = ?", (uuid,)).fetchone()
    if row is None:
        raise HistoryError("history.no_message", message=uuid)
    return int(row["id"]), row["state"] in ("streaming", "interrupted")


def messages(db: sqlite3.Connection, conversation: int) -> list[Message]:
    """All messages of a conversation in order of creation, so parents come before their children."""
    found = db.execute(f"{_MESSAGE} where m.conversation = ? and m.deleted_utc is null order by m.id", (conversation,))
    return [_message(row) for row in found]


def branch(db: sqlite3.Connection, leaf: int) -> list[Message]:
    """The messages from the first one down to `leaf`."""
    found = db.execute(
        "with recursive up (id, parent, height) as (select id, parent, 0 from messages where id = ?"
        " union all select above.id, above.parent, height + 1 from messages above join up on above.id = up.parent)"
        f" {_MESSAGE} join up on up.id = m.id order by up.height desc",
        (leaf,),
    )
    return [_message(row) for row in found]


def siblings(db: sqlite3.Connection, uuid: str) -> list[Message]:
    """The messages with the same parent in the same conversation, itself included, oldest first."""
    found = db.execute(
        f"{_MESSAGE} join messages this on this.conversation = m.conversation and this.parent is m.parent"
        " where this.uuid = ? and m.deleted_utc is null order by m.id",
        (uuid,),
    )
    return [_message(row) for row in found]


def siblings_below(db: sqlite3.Connection, conversation: int, parent: str | None) -> list[Message]:
    """The children of `parent` in a conversation, oldest first; the first messages if `parent` is None."""
    found = db.execute(
        f"{_MESSAGE} where m.conversation = ? and p.uuid is ? and m.deleted_utc is null order by m.id",
        (conversation, parent),
    )
    return [_message(row) for row in found]


def image(db: sqlite3.Connection, sha256: str) -> Image:
    """The `Image` of a picture. Raises HistoryError "history.no_image"."""
    row = db.execute("select * from images where sha256 = ?", (clean(sha256),)).fetchone()
    if row is None:
        raise HistoryError("history.no_image", image=sha256)
    return Image(**row)


def images_of_conversation(db: sqlite3.Connection, conversation: int) -> list[str]:
    """The hashes of all pictures in a conversation's messages and draft."""
    found = db.execute(
        "select image from message_images join messages on messages.id = message where conversation = :key"
        " union select image from draft_images where conversation = :key",
        {"key": conversation},
    )
    return [row["image"] for row in found]


def pictures(db: sqlite3.Connection, owner: str, limit: int, offset: int) -> list[sqlite3.Row]:
    """image, conversation, title, message, created_utc: each picture in the questions of `owner`, once, with the latest
    question about it. Latest first, without deleted conversations."""
    # Read from the latest question backwards (cross join: in this order), so that a page needs only its own rows.
    return db.execute(
        "select i.image, c.uuid as conversation, title, m.uuid as message, m.created_utc"
        " from message_images i cross join messages m on m.id = i.message cross join conversations c"
        " on c.id = m.conversation"
        " where owner = :owner and c.deleted_utc is null and m.deleted_utc is null and not exists ("
        "  select 1 from message_images later cross join messages asks on asks.id = later.message cross join"
        "  conversations holds on holds.id = asks.conversation where later.image = i.image"
        "  and (later.message > i.message or (later.message = i.message and later.place < i.place))"
        "  and holds.owner = :owner and holds.deleted_utc is null and asks.deleted_utc is null)"
        " order by i.message desc, i.place limit :limit offset :offset",
        {"owner": owner, "limit": limit, "offset": offset},
    ).fetchall()


def pictures_about(db: sqlite3.Connection, owner: str, match: str, limit: int, offset: int) -> list[sqlite3.Row]:
    """As `pictures`, of those whose questions, answers or titles match."""
    return db.execute(
        "with recursive about (message) as ("  # the matching messages, and all before them up to one with pictures
        " select rowid from message_search where message_search match :match"
        " union select m.id from title_search join messages m on m.conversation = title_search.rowid"
        "  where title_search match :match and m.deleted_utc is null"
        " union select m.parent from about join messages m on m.id = about.message where m.parent is not null"
        "  and not exists (select 1 from message_images where message = m.id))"
        " select image, c.uuid as conversation, title, m.uuid as message, m.created_utc, max(m.id) as last"
        " from about join message_images i on i.message = about.message join messages m on m.id = i.message"
        " join conversations c on c.id = m.conversation"
        " where owner = :owner and c.deleted_utc is null group by image order by last desc limit :limit offset :offset",
        {"owner": owner, "match": match, "limit": limit, "offset": offset},
    ).fetchall()


def questions_about(db: sqlite3.Connection, owner: str, sha256: str, limit: int) -> list[sqlite3.Row]:
    """See `History.questions_about`. The columns are those of `pictures`."""
    return db.execute(
        "select distinct image, c.uuid as conversation, title, m.uuid as message, m.created_utc"
        " from message_images i join messages m on m.id = i.message join conversations c on c.id = m.conversation"
        " where image = ? and owner = ? and c.deleted_utc is null and m.deleted_utc is null order by m.id desc limit ?",
        (clean(sha256), owner, limit),
    ).fetchall()


def covers(db: sqlite3.Connection, owner: str, conversations: Sequence[str]) -> list[sqlite3.Row]:
    """conversation, image: the first picture of the latest message with pictures, for each of these `conversations` of
    `owner` that has one."""
    return db.execute(
        "select c.uuid as conversation, image, max(m.id * 100 - i.place) from conversations c"
        " join messages m on m.conversation = c.id join message_images i on i.message = m.id"
        " where c.uuid in (select value from json_each(?)) and owner = ? and m.deleted_utc is null group by c.id",
        (json.dumps(conversations), owner),
    ).fetchall()


def counts(db: sqlite3.Connection, owner: str, conversations: Sequence[str]) -> list[sqlite3.Row]:
    """conversation, messages, pictures: how many of each every one of these `conversations` of `owner` has, on all
    branches. A picture in several messages counts once."""
    return db.execute(
        "select c.uuid as conversation, count(distinct m.id) as messages, count(distinct image) as pictures"
        " from conversations c left join messages m on m.conversation = c.id and m.deleted_utc is null"
        " left join message_images on message = m.id"
        " where c.uuid in (select value from json_each(?)) and owner = ? group by c.id",
        (json.dumps(conversations), owner),
    ).fetchall()


def is_shown(db: sqlite3.Connection, owner: str, sha256: str) -> bool:
    """Whether any conversation of `owner` shows this picture."""
    found = db.execute(
        "select 1 from message_images join messages m on m.id = message join conversations c on c.id = m.conversation"
        " where image = :image and owner = :owner union all"
        " select 1 from draft_images join conversations c on c.id = conversation"
        " where image = :image and owner = :owner limit 1",
        {"image": sha256, "owner": owner},
    )
    return found.fetchone() is not None


def is_owned(db: sqlite3.Connection, owner: str, sha256: str) -> bool:
    """Whether `owner` may see this picture."""
    found = db.execute("select 1 from image_owners where owner = ? and image = ?", (owner, clean(sha256)))
    return found.fetchone() is not None


def search_titles(db: sqlite3.Connection, owner: str, match: str, limit: int) -> list[sqlite3.Row]:
    """conversation, title, message (null), role (null), text, created_utc of each matching title, newest first."""
    return db.execute(
        "select uuid as conversation, title, null as message, null as role, title as text, created_utc"
        " from title_search join conversations on conversations.id = title_search.rowid"
        " where title_search match ? and owner = ? and deleted_utc is null order by title_search.rowid desc limit ?",
        (match, owner, limit),
    ).fetchall()


def search_messages(db: sqlite3.Connection, owner: str, match: str, limit: int) -> list[sqlite3.Row]:
    """As `search_titles`, for each matching message. Sorted by rowid, because ranking would first read every hit."""
    return db.execute(
        "select c.uuid as conversation, title, m.uuid as message, role, m.text as text, m.created_utc as created_utc"
        " from message_search join messages m on m.id = message_search.rowid"
        " join conversations c on c.id = m.conversation"
        " where message_search match ? and owner = ? and c.deleted_utc is null"
        " order by message_search.rowid desc limit ?",
        (match, owner, limit),
    ).fetchall()


def _conversation(row: sqlite3.Row) -> Conversation:
    return Conversation(
        uuid=row["uuid"],
        owner=row["owner"],
        title=row["title"],
        created_utc=row["created_utc"],
        updated_utc=row["updated_utc"],
        folder=row["folder"],
        tags=tuple(json.loads(row["tags"])),
        pinned=bool(row["pinned"]),
        draft=row["draft"],
        draft_images=tuple(json.loads(row["draft_images"])),
        leaf=row["leaf_uuid"],
        deleted_utc=row["deleted_utc"],
        archived=bool(row["archived"]),
    )


def _message(row: sqlite3.Row) -> Message:
    return Message(
        uuid=row["uuid"],
        conversation=row["conversation_uuid"],
        parent=row["parent_uuid"],
        role=row["role"],
        text=row["text"],
        images=tuple(json.loads(row["images"])),
        state=row["state"],
        created_utc=row["created_utc"],
        finish_reason=row["finish_reason"],
        model=row["model"],
        tokens=tuple(json.loads(row["tokens"])) if row["tokens"] else None,
        stats=Stats(**json.loads(row["stats"])) if row["stats"] else None,
        dropped_turns=row["dropped_turns"],
        error=Failed(**json.loads(row["error"])) if row["error"] else None,
        feedback=Feedback(**json.loads(row["feedback"])) if row["feedback"] else None,
    )
