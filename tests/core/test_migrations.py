"""Migrations: files of every version open, and each step is applied once, in order, wholly or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from impchat.errors import HistoryError
from impchat.history import migrations
from impchat.history.store import History

STEPS = [step.__name__ for step in migrations.STEPS]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def db(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def applied(db: sqlite3.Connection) -> list[str]:
    return [row["name"] for row in db.execute("select name from _sqlite_migrations order by id")]


def schema(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in db.execute("select type, name, tbl_name, sql from sqlite_master order by type, name")]


def test_an_empty_file_gets_every_step_in_order(db: sqlite3.Connection, file: Path) -> None:
    migrations.migrate(db, str(file))
    assert applied(db) == STEPS
    before = schema(db)
    migrations.migrate(db, str(file))
    assert applied(db) == STEPS and schema(db) == before


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_file_that_stopped_at_any_step_ends_with_the_same_schema(
    db: sqlite3.Connection, file: Path, tmp_path: Path, step: str
) -> None:
    migrations.migrate(db, str(file), stop_before=step)
    assert applied(db) == STEPS[: STEPS.index(step)]
    migrations.migrate(db, str(file))
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as new:
        new.row_factory = sqlite3.Row
        migrations.migrate(new, "new")
        assert schema(db) == schema(new)


def test_rows_of_the_first_schema_survive_all_steps(db: sqlite3.Connection, file: Path) -> None:
    migrations.migrate(db, str(file), stop_before=STEPS[1])
    now = "2026-01-02T03:04:05.678Z"
    db.execute(
        "insert into conversations (uuid, owner, title, created_utc, updated_utc) values ('c', 'me', 'Old', ?, ?)",
        (now, now),
    )
    for uuid, role, text, state in (("q", "user", "斑马在哪里?", "done"), ("a", "assistant", "A half", "streaming")):
        db.execute(
            "insert into messages (uuid, conversation, parent, role, text, state, created_utc)"
            " values (?, 1, (select max(id) from messages), ?, ?, ?, ?)",
            (uuid, role, text, state, now),
        )
    db.execute("update conversations set leaf = 2")

    history = History(file)
    assert history.conversation("c", "me").title == "Old"
    assert [(m.uuid, m.text) for m in history.branch("c", "me")] == [("q", "斑马在哪里?"), ("a", "A half")]
    assert history.message("a", "me").state == "interrupted"  # no running process is known to write it
    assert [hit.message for hit in history.search("me", "斑马")] == ["q"]
    assert [hit.title for hit in history.search("me", "Old")] == ["Old"]
    history.close()


def test_an_emoji_in_an_older_history_is_found(db: sqlite3.Connection, file: Path) -> None:
    migrations.migrate(db, str(file), stop_before="m005_symbols")
    now = "2026-01-02T03:04:05.678Z"
    for key, text in enumerate(("a red circle", "a cat 🐱", "ภาษาไทย"), 1):
        for table in ("message_search", "title_search"):  # the state that the earlier step left
            db.execute(f"insert into {table} (rowid, text) values (?, ?)", (key, text))
        db.execute(
            "insert into conversations (uuid, owner, title, created_utc, updated_utc) values (?, 'me', ?, ?, ?)",
            (f"c{key}", f"Title: {text}", now, now),
        )
        db.execute(
            "insert into messages (uuid, conversation, role, text, state, created_utc)"
            " values (?, ?, 'user', ?, 'done', ?)",
            (f"m{key}", key, text, now),
        )
    history = History(file)
    for query, expected in (("🐱", "2"), ("circle", "1"), ("ไทย", "3")):
        hits = history.search("me", query)
        assert [(hit.message, hit.conversation) for hit in hits] == [(f"m{expected}", f"c{expected}")]
    assert [hit.message for hit in history.search("me", "Title 🐱")] == [None]
    history.close()


def test_a_failing_step_keeps_the_earlier_steps_and_none_of_its_own_changes(db: sqlite3.Connection, file: Path) -> None:
    migrations.migrate(db, str(file), stop_before=STEPS[1])
    db.execute("create table draft_images (in_the_way)")  # the second step creates this table last
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(db, str(file))
    assert applied(db) == STEPS[:1]
    assert "image_owners" not in [row["name"] for row in db.execute("select name from sqlite_master")]
    db.execute("drop table draft_images")
    migrations.migrate(db, str(file))
    assert applied(db) == STEPS


def test_a_file_of_a_newer_impchat_is_refused_and_left_unchanged(db: sqlite3.Connection, file: Path) -> None:
    History(file).close()
    db.execute(
        "insert into _sqlite_migrations (migration_set, name, applied_at) values ('impchat', 'm999_dreams', '2031')"
    )
    before = schema(db)
    with pytest.raises(HistoryError, match="newer ImpChat") as caught:
        History(file)
    assert caught.value.code == "history.newer" and str(file) in caught.value.sentence("zh")
    assert schema(db) == before
    db.execute("delete from _sqlite_migrations where name = 'm999_dreams'")
    History(file).close()


def test_steps_of_other_programs_in_the_same_file_are_ignored(db: sqlite3.Connection, file: Path) -> None:
    History(file).close()
    db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values ('another', 'm999', '2031')")
    History(file).close()


def test_the_names_of_released_steps_do_not_change() -> None:
    assert STEPS[:5] == ["m001_conversations", "m002_images", "m003_search", "m004_writers", "m005_symbols"]
