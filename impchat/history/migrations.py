"""The schema of the history, one function per change. Never edit a step that has been released.

In: an open connection. Out: the file with every step applied, each step and its record in one transaction.
This file does not know what the tables are used for; `store` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from impchat.errors import HistoryError
from impchat.history.search import index_text

if TYPE_CHECKING:
    from sqlite_utils import Database


def m001_conversations(db: Database) -> None:
    db.execute("""
        create table conversations (
            id integer primary key,
            uuid text not null unique,
            owner text not null,
            title text not null,
            folder text not null default '',
            pinned integer not null default 0,
            draft text not null default '',
            leaf integer references messages(id) on delete set null,
            created_utc text not null,
            updated_utc text not null,
            deleted_utc text
        )""")
    # For the list of an owner's conversations: pinned ones on top, newest first.
    db.execute("create index conversations_of_owner on conversations (owner, pinned desc, updated_utc desc)")
    db.execute("""
        create table conversation_tags (
            conversation integer not null references conversations(id) on delete cascade,
            place integer not null,
            tag text not null,
            primary key (conversation, place)
        ) without rowid""")
    db.execute("create index conversations_of_tag on conversation_tags (tag, conversation)")
    db.execute("""
        create table messages (
            id integer primary key,
            uuid text not null unique,
            conversation integer not null references conversations(id) on delete cascade,
            parent integer references messages(id) on delete cascade,
            role text not null check (role in ('user', 'assistant')),
            text text not null,
            state text not null check (state in ('done', 'streaming', 'stopped', 'failed', 'interrupted')),
            created_utc text not null,
            finish_reason text,
            model text,
            tokens text,  -- a JSON list of token ids in `model`
            stats text,  -- a JSON object, the fields of messages.Stats
            dropped_turns integer not null default 0,
            error text  -- a JSON object, the fields of messages.Failed
        )""")
    db.execute("create index messages_of_conversation on messages (conversation)")
    db.execute("create index messages_of_parent on messages (parent)")
    # For the search for streaming messages, few among many, when the file is opened.
    db.execute("create index messages_streaming on messages (id) where state = 'streaming'")


def m002_images(db: Database) -> None:
    db.execute("""
        create table images (
            sha256 text primary key,
            width integer not null,
            height integer not null,
            mime text not null,
            size_bytes integer not null
        ) without rowid""")
    # Who may see a picture. A picture without an owner is removed, together with its file.
    db.execute("""
        create table image_owners (
            owner text not null,
            image text not null references images(sha256) on delete cascade,
            primary key (owner, image)
        ) without rowid""")
    db.execute("create index owners_of_image on image_owners (image)")
    for table, of in (("message_images", "message"), ("draft_images", "conversation")):
        db.execute(f"""
            create table {table} (
                {of} integer not null references {of}s(id) on delete cascade,
                place integer not null,
                image text not null references images(sha256),
                primary key ({of}, place)
            ) without rowid""")
        db.execute(f"create index {table}_of_image on {table} (image)")


def m003_search(db: Database) -> None:
    # Texts as search.index_text returns them; rowid is the id of the indexed row.
    for table, found, column in (("message_search", "messages", "text"), ("title_search", "conversations", "title")):
        db.execute(f"create virtual table {table} using fts5(text, tokenize='unicode61 remove_diacritics 2')")
        db.execute(f"""
            create trigger {table}_delete after delete on {found} begin
                delete from {table} where rowid = old.id;
            end""")
        for key, text in db.execute(f"select id, {column} from {found}").fetchall():
            db.execute(f"insert into {table} (rowid, text) values (?, ?)", (key, index_text(text)))


def m004_writers(db: Database) -> None:
    # The process that writes a streaming message. `lock` names a file in `writers` that it keeps locked while it runs.
    db.execute("""
        create table writers (
            message integer primary key references messages(id) on delete cascade,
            lock text not null,
            host text not null,
            pid integer not null,
            heartbeat_utc text not null
        )""")


def m005_symbols(db: Database) -> None:
    # search.index_text now keeps symbols, including emoji, and separates the characters of more scripts.
    for table, found, column in (("message_search", "messages", "text"), ("title_search", "conversations", "title")):
        db.execute(f"delete from {table}")
        for key, text in db.execute(f"select id, {column} from {found}").fetchall():
            db.execute(f"insert into {table} (rowid, text) values (?, ?)", (key, index_text(text)))


def m006_prefixes(db: Database) -> None:
    # Queries match words as prefixes. Without an index of prefixes, one to three letters are the beginning of thousands
    # of words, the places of each of which are read and merged.
    for table in ("message_search", "title_search"):
        rows = db.execute(f"select rowid, text from {table}").fetchall()
        db.execute(f"drop table {table}")
        db.execute(
            f"create virtual table {table} using fts5(text, tokenize='unicode61 remove_diacritics 2', prefix='1 2 3')"
        )
        for row in rows:
            db.execute(f"insert into {table} (rowid, text) values (?, ?)", tuple(row))


def m007_organise(db: Database) -> None:
    db.execute("alter table conversations add column archived integer not null default 0")
    # For the list of conversations, the archive, and the bin.
    db.execute("""
        create index conversations_listed on conversations (owner, archived, pinned desc, updated_utc desc, id desc)
        where deleted_utc is null""")
    db.execute("create index conversations_binned on conversations (owner, deleted_utc) where deleted_utc is not null")
    db.execute("alter table messages add column feedback text")  # a JSON object, the fields of messages.Feedback
    # A deleted message is kept for a while, so that the deletion can be undone. No message below it is undeleted.
    db.execute("alter table messages add column deleted_utc text")
    # The deleted answer that a question followed.
    db.execute("alter table messages add column moved_from integer references messages(id) on delete set null")
    db.execute("create index messages_deleted on messages (conversation) where deleted_utc is not null")
    db.execute("create index messages_moved on messages (moved_from) where moved_from is not null")
    # The latest change of each conversation; a purged one keeps its row. Changes of an owner are numbered 1, 2, 3, ...
    db.execute("""
        create table changes (
            conversation text primary key,  -- its uuid
            owner text not null,
            number integer not null
        ) without rowid""")
    db.execute("create unique index changes_of_owner on changes (owner, number)")
    for event, row, table, key in (
        ("insert", "new", "conversations", "id"),
        ("update", "new", "conversations", "id"),
        ("insert", "new", "messages", "conversation"),
        ("update of state, feedback, deleted_utc", "new", "messages", "conversation"),
        ("insert", "new", "conversation_tags", "conversation"),
        ("delete", "old", "conversation_tags", "conversation"),
        ("insert", "new", "draft_images", "conversation"),
        ("delete", "old", "draft_images", "conversation"),
    ):
        # The text of a growing answer is saved twice per second, in the same state: no change.
        when = "when (old.state, old.feedback, old.deleted_utc) is not (new.state, new.feedback, new.deleted_utc)"
        db.execute(f"""
            create trigger changes_{table}_{event.split()[0]} after {event} on {table}
            {when if " of " in event else ""} begin
                insert into changes (conversation, owner, number)
                select uuid, owner, (select coalesce(max(number), 0) + 1 from changes where owner = c.owner)
                from conversations c where id = {row}.{key}
                on conflict (conversation) do update set owner = excluded.owner, number = excluded.number;
            end""")
    db.execute("""
        create trigger changes_conversations_delete after delete on conversations begin
            insert into changes (conversation, owner, number) values
                (old.uuid, old.owner, (select coalesce(max(number), 0) + 1 from changes where owner = old.owner))
            on conflict (conversation) do update set owner = excluded.owner, number = excluded.number;
        end""")


Step = Callable[["Database"], None]
STEPS: Sequence[Step] = (
    m001_conversations,
    m002_images,
    m003_search,
    m004_writers,
    m005_symbols,
    m006_prefixes,
    m007_organise,
)


def migrate(
    connection: sqlite3.Connection, path: str, stop_before: str | None = None, steps: Sequence[Step] = STEPS
) -> None:
    """Apply the missing `steps` in order, up to but not including `stop_before`.

    Raises HistoryError "history.newer" if the file has steps that this version does not know."""
    applied = _applied(connection)
    names = [step.__name__ for step in steps]
    if not applied <= set(names):
        raise HistoryError("history.newer", path=path)
    if applied == set(names):  # the usual case; importing sqlite_utils takes longer than opening the file
        return
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("impchat")
    for step in steps:
        migrations()(step)
    migrations.apply(Database(connection), stop_before=stop_before)


def _applied(connection: sqlite3.Connection) -> set[str]:
    """The names of the steps that sqlite_utils has recorded in the file."""
    if not connection.execute("select 1 from sqlite_master where name = '_sqlite_migrations'").fetchone():
        return set()
    found = connection.execute("select name from _sqlite_migrations where migration_set = 'impchat'")
    return {row[0] for row in found}
