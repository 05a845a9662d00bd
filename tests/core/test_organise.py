"""Order in the history: archive, folders, tags, the bin, deleted messages, feedback, and what changed."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from impchat import images
from impchat.errors import ChatError, HistoryError
from impchat.history import archive
from impchat.history.store import History
from impchat.images import Prepared
from impchat.messages import Feedback, Message

ME, OTHER = "me", "somebody else"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def history(file: Path) -> Iterator[History]:
    history = History(file)
    yield history
    history.close()


def picture(colour: str) -> Prepared:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "PNG")
    return images.prepare(out.getvalue())


def made(history: History, text: str = "What is this?", owner: str = ME) -> str:
    """The uuid of a conversation with one question."""
    uuid = history.create_conversation(owner).uuid
    history.add_question(uuid, owner, parent=None, text=text)
    return uuid


def ask(history: History, uuid: str, text: str, parent: Message | None = None, shown: tuple[str, ...] = ()) -> Message:
    return history.add_question(uuid, ME, parent=parent.uuid if parent else None, text=text, images=shown)


def reply(history: History, question: Message, text: str) -> Message:
    row = history.start_answer(question.conversation, ME, parent=question.uuid, model="m")
    return history.finish_answer(row.uuid, text=text, state="done", finish_reason="stop")


def titles(history: History, **which: object) -> list[str]:
    return [c.title for c in history.conversations(ME, **which)]  # type: ignore[arg-type]


def texts(history: History, uuid: str) -> list[str]:
    return [message.text for message in history.branch(uuid, ME)]


def pictures_on_disk(file: Path) -> list[str]:
    return sorted(path.stem for path in (file.parent / "images").rglob("*.*"))


def code(call: Callable[[], object]) -> str:
    with pytest.raises((HistoryError, ChatError)) as caught:
        call()
    return caught.value.code


# Archive, folders, tags


def test_an_archived_conversation_leaves_the_list_and_is_found_in_the_archive(history: History, file: Path) -> None:
    kept, archived = made(history, "kept"), made(history, "archived")
    history.update_conversation(archived, ME, archived=True)
    history.close()

    again = History(file)
    assert titles(again) == ["kept"] and titles(again, archived=True) == ["archived"]
    assert titles(again, archived=None) == ["archived", "kept"]
    assert [hit.conversation for hit in again.search(ME, "archived")] == [archived]
    again.update_conversation(archived, ME, archived=False)
    assert titles(again) == ["archived", "kept"] and again.conversation(kept, ME).archived is False
    again.close()


def test_a_new_question_takes_a_conversation_out_of_the_archive(history: History) -> None:
    uuid = made(history)
    history.update_conversation(uuid, ME, archived=True)
    ask(history, uuid, "More")
    assert titles(history, archived=True) == [] and len(titles(history)) == 1


def test_folders_and_tags_are_listed_by_name_with_what_the_list_shows(history: History) -> None:
    one, two, three, four, binned = (made(history, text) for text in ("one", "two", "three", "four", "binned"))
    for uuid, folder, tags in (
        (one, "work", ["B", "a"]), (two, "Home", ["a"]), (three, "work", []), (four, "work", ["a"]),
        (binned, "x", ["y"]),
    ):  # fmt: skip
        history.update_conversation(uuid, ME, folder=folder, tags=tags)
    history.update_conversation(four, ME, archived=True)
    history.delete_conversation(binned, ME)
    made(history, owner=OTHER)

    assert list(history.folders(ME).items()) == [("Home", 1), ("work", 2)]
    assert list(history.tags(ME).items()) == [("a", 2), ("B", 1)]
    assert (history.folders(ME, archived=True), history.tags(ME, archived=True)) == ({"work": 1}, {"a": 1})
    assert titles(history, folder="work") == ["three", "one"] and titles(history, tag="a", folder="Home") == ["two"]
    assert titles(history, folder="work", archived=True) == ["four"]
    assert history.folders(OTHER) == history.tags(OTHER) == {}


def test_renaming_a_folder_moves_its_chats_and_removing_it_keeps_them(history: History, file: Path) -> None:
    one, two, binned = made(history, "one"), made(history, "two"), made(history, "binned")
    other = made(history, "other", OTHER)
    for uuid, owner in ((one, ME), (binned, ME), (other, OTHER)):
        history.update_conversation(uuid, owner, folder="  old \n name ")
    history.update_conversation(two, ME, folder="new")
    history.delete_conversation(binned, ME)
    history.rename_folder(ME, "old name", " new ")
    assert history.folders(ME) == {"new": 2} and history.folders(OTHER) == {"old name": 1}
    history.restore_conversation(binned, ME)
    assert history.folders(ME) == {"new": 3}

    history.rename_folder(ME, "new", "")
    history.close()
    again = History(file)
    assert again.folders(ME) == {} and titles(again) == ["binned", "two", "one"]
    again.close()


def test_renaming_a_tag_keeps_its_place_and_joins_an_existing_one(history: History) -> None:
    one, two = made(history, "one"), made(history, "two")
    history.update_conversation(one, ME, tags=["a", "b", "c", " ", "a"])
    history.update_conversation(two, ME, tags=["b"])
    history.rename_tag(ME, "a", "z")
    assert history.conversation(one, ME).tags == ("z", "b", "c")
    history.rename_tag(ME, "z", "c")
    assert history.conversation(one, ME).tags == ("c", "b")
    history.rename_tag(ME, "b", "")
    assert history.tags(ME) == {"c": 1} and history.conversation(two, ME).tags == ()


def test_pages_of_five_thousand_conversations_come_from_the_index(history: History, file: Path) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.executemany(
            "insert into conversations (uuid, owner, title, pinned, archived, created_utc, updated_utc)"
            " values (?, 'me', ?, ?, ?, '2026', ?)",
            [(f"{n:036}", str(n), n == 7, n % 10 == 0, f"2026-{n:05}") for n in range(5000)],
        )
    listed = [c.title for start in range(0, 4500, 50) for c in history.conversations(ME, limit=50, offset=start)]
    assert listed == ["7", *(str(n) for n in reversed(range(5000)) if n % 10 and n != 7)]
    plan = "explain query plan select id from conversations where owner = 'me' and deleted_utc is null and archived = 0"
    with closing(sqlite3.connect(file)) as db:
        steps = [row[3] for row in db.execute(f"{plan} order by pinned desc, updated_utc desc, id desc limit 50")]
    assert len(steps) == 1 and "conversations_listed" in steps[0]  # no sorting


# The bin


def test_the_bin_lists_the_latest_deletion_first_with_its_time(history: History) -> None:
    first, second, archived = made(history, "first"), made(history, "second"), made(history, "archived")
    history.update_conversation(archived, ME, archived=True)
    for uuid in (second, archived, first):
        history.delete_conversation(uuid, ME)
    binned = history.conversations(ME, deleted=True)
    assert [c.title for c in binned] == ["first", "archived", "second"]
    times = [c.deleted_utc or "" for c in binned]
    assert times == sorted(times, reverse=True) and all(times)
    history.restore_conversation(archived, ME)
    assert titles(history, archived=True) == ["archived"]


def test_emptying_the_bin_leaves_nothing_of_it_on_disk(history: History, file: Path) -> None:
    red, blue = history.add_image(picture("red"), ME), history.add_image(picture("blue"), ME)
    kept, binned = made(history, "kept"), history.create_conversation(ME).uuid
    ask(history, kept, "blue", shown=(blue.sha256,))
    ask(history, binned, "A secret word", shown=(red.sha256, blue.sha256))
    history.update_conversation(binned, ME, tags=["hidden"], draft="typed")
    other = made(history, "other", OTHER)
    history.delete_conversation(other, OTHER)
    purged: list[str] = []
    history.on_purge(purged.append)

    history.delete_conversation(binned, ME)
    assert history.empty_bin(ME) == 1

    assert purged == [binned]
    assert pictures_on_disk(file) == [blue.sha256]
    assert titles(history, deleted=True) == [] and titles(history) == ["kept"]
    assert len(history.conversations(OTHER, deleted=True)) == 1
    history.close()
    with closing(sqlite3.connect(file)) as db:
        for table in (
            "messages",
            "message_images",
            "conversation_tags",
            "message_search_content",
            "title_search_content",
        ):
            assert "secret" not in str(db.execute(f"select * from {table}").fetchall())


# Feedback


def test_feedback_is_kept_changed_and_removed(history: History, file: Path) -> None:
    uuid = made(history)
    answer = reply(history, history.branch(uuid, ME)[0], "A circle")
    assert answer.feedback is None
    history.set_feedback(answer.uuid, ME, Feedback(False, "It is a square 图"))
    history.close()
    again = History(file)
    assert again.message(answer.uuid, ME).feedback == Feedback(False, "It is a square 图")
    assert again.set_feedback(answer.uuid, ME, Feedback(True)).feedback == Feedback(True)
    assert again.set_feedback(answer.uuid, ME, None).feedback is None
    assert code(lambda: again.set_feedback(answer.uuid, OTHER, Feedback(True))) == "history.no_message"
    assert code(lambda: again.set_feedback(again.branch(uuid, ME)[0].uuid, ME, Feedback(True))) == "chat.not_an_answer"
    again.close()


def test_feedback_and_archive_flag_travel_in_an_export(history: History, tmp_path: Path) -> None:
    uuid = made(history)
    answer = reply(history, history.branch(uuid, ME)[0], "A circle")
    history.set_feedback(answer.uuid, ME, Feedback(True, "right"))
    history.update_conversation(uuid, ME, archived=True)
    there = History(tmp_path / "there" / "history.db")
    arrived = archive.import_zip(there, archive.export_zip(history, uuid, ME), ME)
    assert arrived.archived and there.message(answer.uuid, ME).feedback == Feedback(True, "right")

    there.set_feedback(answer.uuid, ME, None)  # a later import brings it back, but does not replace another opinion
    archive.import_zip(there, archive.export_zip(history, uuid, ME), ME)
    assert there.message(answer.uuid, ME).feedback == Feedback(True, "right")
    there.set_feedback(answer.uuid, ME, Feedback(False))
    archive.import_zip(there, archive.export_zip(history, uuid, ME), ME)
    assert there.message(answer.uuid, ME).feedback == Feedback(False)
    there.close()


# Deleted messages


def test_a_deleted_question_takes_its_answers_and_keeps_what_followed(history: History, file: Path) -> None:
    uuid = history.create_conversation(ME).uuid
    first = ask(history, uuid, "Q1")
    answer = reply(history, first, "A1")
    second = ask(history, uuid, "Secret Q2", answer)
    reply(history, second, "A2")
    version = reply(history, second, "A2b")
    third = ask(history, uuid, "Q3", version)
    reply(history, third, "A3")
    whole = history.messages(uuid, ME)

    history.delete_message(second.uuid, ME)
    assert texts(history, uuid) == ["Q1", "A1", "Q3", "A3"]
    assert history.search(ME, "Secret") == [] and history.counts(ME, [uuid])[uuid] == (4, 0)
    assert code(lambda: history.message(second.uuid, ME)) == "history.no_message"
    copy = archive.export_zip(history, uuid, ME)
    assert b"Secret" not in copy

    history.restore_message(uuid, ME, second.uuid)
    assert texts(history, uuid) == ["Q1", "A1", "Secret Q2", "A2b", "Q3", "A3"]
    assert history.messages(uuid, ME) == whole and len(history.search(ME, "Secret")) == 1

    history.delete_message(second.uuid, ME)
    history.delete_message(first.uuid, ME)  # makes the earlier deletion permanent
    assert texts(history, uuid) == ["Q3", "A3"]
    assert code(lambda: history.restore_message(uuid, ME, second.uuid)) == "history.no_message"
    history.restore_message(uuid, ME, first.uuid)
    assert texts(history, uuid) == ["Q1", "A1", "Q3", "A3"]
    history.close()
    with closing(sqlite3.connect(file)) as db:
        assert "Secret" not in str(db.execute("select text from messages").fetchall())
        assert db.execute("pragma foreign_key_check").fetchall() == []


def test_a_deleted_answer_takes_what_followed_it_and_another_version_is_shown(history: History) -> None:
    uuid = history.create_conversation(ME).uuid
    question = ask(history, uuid, "Q")
    first = reply(history, question, "A1")
    reply(history, ask(history, uuid, "Q2", first), "after A1")
    second = reply(history, question, "A2")
    reply(history, ask(history, uuid, "Q3", second), "after A2")
    history.delete_message(second.uuid, ME)
    assert texts(history, uuid) == ["Q", "A1", "Q2", "after A1"]
    assert [m.text for m in history.siblings(first.uuid, ME)] == ["A1"]
    history.restore_message(uuid, ME, second.uuid)
    assert texts(history, uuid) == ["Q", "A2", "Q3", "after A2"]
    assert [m.text for m in history.siblings(first.uuid, ME)] == ["A1", "A2"]

    history.delete_message(first.uuid, ME)
    assert texts(history, uuid) == ["Q", "A2", "Q3", "after A2"]  # the shown branch is not affected
    history.delete_message(second.uuid, ME)
    assert texts(history, uuid) == ["Q"]
    history.delete_message(question.uuid, ME)
    assert texts(history, uuid) == [] and history.conversation(uuid, ME).leaf is None


def test_pictures_of_a_deleted_message_are_kept_for_the_undo_and_then_removed(history: History, file: Path) -> None:
    red, blue = history.add_image(picture("red"), ME), history.add_image(picture("blue"), ME)
    uuid = made(history)
    question = ask(history, uuid, "Red?", shown=(red.sha256, blue.sha256))
    ask(history, uuid, "Blue?", shown=(blue.sha256,))
    history.delete_message(question.uuid, ME)
    assert [asked.image for asked in history.pictures(ME)] == [blue.sha256]
    assert history.counts(ME, [uuid])[uuid] == (2, 1) and history.covers(ME, [uuid]) == {uuid: blue.sha256}
    history.close()

    again = History(file)  # opened soon after
    again.restore_message(uuid, ME, question.uuid)
    assert len(again.pictures(ME)) == 2 and again.image_bytes(red.sha256) == picture("red").data
    again.delete_message(question.uuid, ME)
    again.close()

    with closing(sqlite3.connect(file)) as db, db:
        db.execute("update messages set deleted_utc = '2020' where deleted_utc is not null")
    later = History(file)
    assert code(lambda: later.restore_message(uuid, ME, question.uuid)) == "history.no_message"
    assert pictures_on_disk(file) == [blue.sha256]
    later.close()


def test_emptying_the_bin_makes_deletions_of_messages_permanent(history: History) -> None:
    uuid, theirs = made(history), made(history, owner=OTHER)
    question = ask(history, uuid, "Q")
    history.delete_message(question.uuid, ME)
    other = history.branch(theirs, OTHER)[0]
    history.delete_message(other.uuid, OTHER)
    assert history.empty_bin(ME) == 0
    assert code(lambda: history.restore_message(uuid, ME, question.uuid)) == "history.no_message"
    history.restore_message(theirs, OTHER, other.uuid)


def test_an_import_restores_deleted_messages(history: History) -> None:
    uuid = history.create_conversation(ME).uuid
    question = ask(history, uuid, "Q1")
    answer = reply(history, question, "A1")
    reply(history, ask(history, uuid, "Q2", answer), "A2")
    whole, copy = history.messages(uuid, ME), archive.export_zip(history, uuid, ME)
    history.delete_message(question.uuid, ME)
    archive.import_zip(history, copy, ME)
    assert history.messages(uuid, ME) == whole
    history.delete_message(question.uuid, ME)
    history.empty_bin(ME)
    archive.import_zip(history, copy, ME)
    assert sorted(m.text for m in history.messages(uuid, ME)) == ["A1", "A2", "Q1", "Q2"]
    assert archive.import_zip(history, archive.export_zip(history, uuid, ME), ME)


def test_another_owner_deletes_and_restores_nothing(history: History) -> None:
    uuid = made(history)
    question = history.branch(uuid, ME)[0]
    assert code(lambda: history.delete_message(question.uuid, OTHER)) == "history.no_message"
    history.delete_message(question.uuid, ME)
    assert code(lambda: history.restore_message(uuid, OTHER, question.uuid)) == "history.no_conversation"


# Changes


def test_each_kind_of_change_is_seen_by_another_process_once(history: History, file: Path) -> None:
    red = history.add_image(picture("red"), ME)
    uuid, still, theirs = made(history), made(history, "still"), made(history, owner=OTHER)
    other = History(file)
    seen = other.latest_change(ME)
    assert other.changes_since(ME, seen) == (seen, [])

    def changed(change: Callable[[], object]) -> list[str]:
        nonlocal seen
        change()
        seen, found = other.changes_since(ME, seen)
        return found

    question = history.branch(uuid, ME)[0]
    row = history.start_answer(uuid, ME, parent=question.uuid, model="m")
    assert changed(lambda: None) == [uuid]
    for change in (
        lambda: history.finish_answer(row.uuid, text="A circle", state="done"),
        lambda: history.set_feedback(row.uuid, ME, Feedback(True)),
        lambda: history.update_conversation(uuid, ME, title="Renamed"),
        lambda: history.update_conversation(uuid, ME, tags=["x"]),
        lambda: history.update_conversation(uuid, ME, tags=[]),
        lambda: history.update_conversation(uuid, ME, draft="typed"),
        lambda: history.update_conversation(uuid, ME, draft_images=[red.sha256]),
        lambda: history.update_conversation(uuid, ME, archived=True),
        lambda: history.delete_message(row.uuid, ME),
        lambda: history.restore_message(uuid, ME, row.uuid),
        lambda: history.delete_conversation(uuid, ME),
        lambda: history.purge_conversation(uuid, ME),
    ):
        assert changed(change) == [uuid]
    new = ""

    def several() -> None:
        nonlocal new
        history.update_conversation(still, ME, pinned=True)
        new = made(history, "new")
        history.update_conversation(theirs, OTHER, pinned=True)

    assert changed(several) == [still, new]
    streaming = history.start_answer(new, ME, parent=history.branch(new, ME)[0].uuid, model="m")
    assert changed(lambda: None) == [new]
    assert changed(lambda: history.flush_answer(streaming.uuid, "A growing answer")) == []
    other.close()


# The photo library


def library(history: History, query: str = "") -> list[tuple[str, str]]:
    return [(asked.image, asked.conversation) for asked in history.pictures(ME, query=query)]


def test_pictures_are_found_by_words_in_what_was_asked_and_answered_about_them(history: History) -> None:
    red, blue = history.add_image(picture("red"), ME).sha256, history.add_image(picture("blue"), ME).sha256
    one, two = history.create_conversation(ME).uuid, history.create_conversation(ME).uuid
    question = ask(history, one, "What is this?", shown=(red,))
    answer = reply(history, question, "A zebra in the Café")
    follow = reply(history, ask(history, one, "Where?", answer), "In Kenya, 在动物园")
    reply(history, ask(history, one, "And here?", follow, shown=(blue,)), "An okapi")
    ask(history, two, "Is it a horse?", shown=(red, blue))

    assert library(history, "zebra cafe") == library(history, "Kenya") == library(history, "动物园") == [(red, one)]
    assert library(history, "okapi") == [(blue, one)]
    assert library(history, "horse") == [(red, two), (blue, two)] == library(history, "  ") == library(history)
    assert library(history, "What") == [(blue, one), (red, one)]  # the title of the conversation
    assert library(history, "giraffe") == [] and history.pictures(OTHER, query="zebra") == []
    assert [a.image for a in history.pictures(ME, limit=1, offset=1, query="horse")] == [blue]
    history.delete_message(follow.uuid, ME)
    assert library(history, "Kenya") == []
    history.delete_conversation(two, ME)
    assert library(history, "horse") == []


def test_a_picture_that_was_asked_about_before_is_recognised(history: History, file: Path) -> None:
    red = history.add_image(picture("red"), ME).sha256
    one, two = history.create_conversation(ME).uuid, history.create_conversation(ME).uuid
    first = ask(history, one, "What is this?", shown=(red, red))
    second = ask(history, two, "And now?", shown=(red,))
    history.close()
    again = History(file)
    same = picture("red").image.sha256
    assert [(a.conversation, a.message, a.title) for a in again.questions_about(ME, same)] == [
        (two, second.uuid, "And now?"),
        (one, first.uuid, "What is this?"),
    ]
    assert again.questions_about(OTHER, same) == [] == again.questions_about(ME, "\udcff")
    again.delete_message(second.uuid, ME)
    again.delete_conversation(one, ME)
    assert again.questions_about(ME, same) == []
    again.close()
