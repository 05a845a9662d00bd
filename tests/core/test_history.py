"""The history keeps what it was given, separates owners, and stays whole when a write fails."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from impchat import images, settings
from impchat.errors import HistoryError
from impchat.history.mutations import now
from impchat.history.store import History
from impchat.images import Prepared
from impchat.messages import Conversation, Failed, Message, Stats

ME, OTHER = "me", "somebody else"
NOWHERE = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def history(file: Path) -> Iterator[History]:
    history = History(file)
    yield history
    history.close()


def picture(colour: str, side: int = 8) -> Prepared:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return images.prepare(out.getvalue())


def asked(history: History, text: str = "What is this?", owner: str = ME) -> tuple[Conversation, Message]:
    conversation = history.create_conversation(owner)
    question = history.add_question(conversation.uuid, owner, parent=None, text=text)
    return history.conversation(conversation.uuid, owner), question


def answered(history: History, question: Message, text: str = "A circle.", owner: str = ME) -> Message:
    answer = history.start_answer(question.conversation, owner, parent=question.uuid, model="imp-demo-196")
    return history.finish_answer(answer.uuid, text=text, state="done", finish_reason="stop")


def image_files(file: Path) -> list[str]:
    return sorted(path.name for path in (file.parent / "images").rglob("*.*"))


def is_whole(file: Path) -> bool:
    with sqlite3.connect(file) as db:
        found = db.execute("pragma integrity_check").fetchall() + db.execute("pragma foreign_key_check").fetchall()
    db.close()
    return found == [("ok",)]


# Conversations


def test_the_data_folder_is_made_for_its_owner_alone(history: History, file: Path) -> None:
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_conversation_is_still_there_after_closing(file: Path) -> None:
    first = History(file)
    conversation, question = asked(first)
    answer = answered(first, question)
    conversation = first.conversation(conversation.uuid, ME)
    first.close()
    again = History(file)
    assert again.conversation(conversation.uuid, ME) == conversation
    assert again.messages(conversation.uuid, ME) == [question, answer]
    again.close()


def test_an_update_changes_only_the_given_fields(history: History) -> None:
    red = history.add_image(picture("red"), ME)
    before = history.create_conversation(ME, "Shapes")
    assert (before.title, before.owner, before.leaf) == ("Shapes", ME, None)
    changes = {
        "title": "Circles",
        "folder": "School",
        "tags": ("maths", "图形", "a"),
        "pinned": True,
        "draft": "And what",
        "draft_images": (red.sha256, red.sha256),
    }
    for name, value in changes.items():
        after = history.update_conversation(before.uuid, ME, **{name: value})
        expected = {f: getattr(before, f) for f in Conversation.__dataclass_fields__} | {name: value}
        assert {f: getattr(after, f) for f in Conversation.__dataclass_fields__} == expected
        assert history.conversation(before.uuid, ME) == after
        before = after
    cleared = history.update_conversation(before.uuid, ME, tags=(), pinned=False, draft="", draft_images=(), folder="")
    assert (cleared.tags, cleared.pinned, cleared.draft, cleared.draft_images, cleared.folder) == (
        (),
        False,
        "",
        (),
        "",
    )


def test_all_times_differ_however_fast_events_follow() -> None:
    times = [now() for _ in range(500)]
    assert times == sorted(set(times))
    assert datetime.fromisoformat(times[0]) < datetime.now(UTC) + timedelta(seconds=3)


def test_conversations_come_pinned_first_then_by_their_latest_message(history: History) -> None:
    first, second, third = (asked(history, text)[0] for text in ("one", "two", "three"))
    assert [c.title for c in history.conversations(ME)] == ["three", "two", "one"]
    history.add_question(first.uuid, ME, parent=None, text="again")
    assert [c.title for c in history.conversations(ME)] == ["one", "three", "two"]
    history.update_conversation(second.uuid, ME, pinned=True)
    history.update_conversation(third.uuid, ME, title="renamed")  # is no message and changes no order
    assert [c.title for c in history.conversations(ME)] == ["two", "one", "renamed"]
    assert [c.title for c in history.conversations(ME, limit=1, offset=1)] == ["one"]


def test_conversations_are_listed_by_folder_and_by_tag(history: History) -> None:
    one, two, _ = (asked(history, text)[0] for text in ("one", "two", "three"))
    history.update_conversation(one.uuid, ME, folder="F", tags=["x", "y"])
    history.update_conversation(two.uuid, ME, tags=["y"])
    assert [c.title for c in history.conversations(ME, folder="F")] == ["one"]
    assert [c.title for c in history.conversations(ME, tag="y")] == ["two", "one"]
    assert [c.title for c in history.conversations(ME, tag="x", folder="F")] == ["one"]
    assert [c.title for c in history.conversations(ME, folder="")] == ["three", "two"]
    assert history.conversations(ME, tag="z") == []


def test_a_deleted_conversation_is_out_of_sight_until_restored(history: History) -> None:
    conversation, _ = asked(history, "Find me")
    history.delete_conversation(conversation.uuid, ME)
    assert history.conversations(ME) == [] and history.search(ME, "Find") == []
    assert [c.uuid for c in history.conversations(ME, deleted=True)] == [conversation.uuid]
    assert history.conversation(conversation.uuid, ME).deleted_utc is not None
    history.restore_conversation(conversation.uuid, ME)
    assert history.conversations(ME) == [conversation]
    assert len(history.search(ME, "Find")) == 1


# Messages


def test_a_question_titles_the_conversation_ends_the_branch_and_clears_the_draft(history: History) -> None:
    red = history.add_image(picture("red"), ME)
    conversation = history.create_conversation(ME)
    history.update_conversation(conversation.uuid, ME, draft="What", draft_images=[red.sha256])
    question = history.add_question(
        conversation.uuid, ME, parent=None, text="  What is\nthis?  ", images=[red.sha256, red.sha256]
    )
    assert (question.text, question.images) == ("  What is\nthis?  ", (red.sha256, red.sha256))
    assert (question.role, question.state, question.parent) == ("user", "done", None)
    after = history.conversation(conversation.uuid, ME)
    assert (after.title, after.leaf, after.draft, after.draft_images) == ("What is this?", question.uuid, "", ())
    assert after.updated_utc == question.created_utc


def test_a_chat_that_began_with_a_picture_alone_is_titled_by_its_answer(history: History) -> None:
    conversation, question = asked(history, "")
    assert conversation.title == ""
    answer = answered(history, question)
    assert history.conversation(conversation.uuid, ME).title == answer.text != ""


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("A red circle on a white table. It is round.", "A red circle on a white table."),
        ("Yes. It is a cat", "Yes. It is a cat"),
        ("一只黑白相间的猫。它在睡觉。", "一只黑白相间的猫。"),
        ("1. A cat\n2. A dog and a bird", "1. A cat 2. A dog and a bird"),
        ("A picture of " + "very " * 30 + "many words.", "A picture of " + "very " * 9 + "v…"),
    ],
)
def test_the_title_from_an_answer_is_its_first_sentence(history: History, text: str, title: str) -> None:
    conversation, question = asked(history, "")
    answered(history, question, text)
    assert history.conversation(conversation.uuid, ME).title == title


def test_a_title_is_cut_from_the_first_question_that_has_words(history: History) -> None:
    conversation, question = asked(history, "")
    unanswered = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="imp-demo-196")
    history.finish_answer(unanswered.uuid, text="", state="stopped")
    history.add_question(conversation.uuid, ME, parent=unanswered.uuid, text="long " * 100)
    title = history.conversation(conversation.uuid, ME).title
    assert title.startswith("long long") and title.endswith("…") and len(title) <= settings.TITLE_CHARS
    history.add_question(conversation.uuid, ME, parent=None, text="other")
    assert history.conversation(conversation.uuid, ME).title == title


def test_a_streaming_answer_is_seen_by_others_as_it_grows(history: History, file: Path) -> None:
    conversation, question = asked(history)
    answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="imp-demo-196")
    assert (answer.state, answer.text, answer.model, answer.parent) == ("streaming", "", "imp-demo-196", question.uuid)
    other = History(file)
    for text in ("A", "A red", "A red circle"):
        history.flush_answer(answer.uuid, text)
        assert (other.message(answer.uuid, ME).text, other.message(answer.uuid, ME).state) == (text, "streaming")
    other.close()


def test_the_end_of_an_answer_is_stored_with_its_counts(history: History) -> None:
    conversation, question = asked(history)
    answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="imp-demo-196")
    stats = Stats(prompt_tokens=240, cached_tokens=200, new_tokens=40, generated_tokens=3, vision_s=0.1, decode_s=1 / 3)
    done = history.finish_answer(
        answer.uuid,
        text="红色的圆。",
        state="done",
        finish_reason="length",
        stats=stats,
        tokens=(5, 0, 51199),
        dropped_turns=2,
    )
    assert done == history.message(answer.uuid, ME) == history.branch(conversation.uuid, ME)[-1]
    assert (done.text, done.state, done.finish_reason, done.stats) == ("红色的圆。", "done", "length", stats)
    assert (done.tokens, done.dropped_turns, done.error) == ((5, 0, 51199), 2, None)


def test_a_failed_answer_keeps_its_text_and_its_error(history: History) -> None:
    _, question = asked(history)
    answer = history.start_answer(question.conversation, ME, parent=question.uuid, model="m")
    error = Failed("image.truncated", {"format": "PNG", "path": "图.png", "size": 3})
    failed = history.finish_answer(answer.uuid, text="A re", state="failed", error=error)
    assert (failed.state, failed.text, failed.error) == ("failed", "A re", error)
    assert failed.tokens is None and failed.stats is None
    assert HistoryError(failed.error.code, **failed.error.values).code == "image.truncated"


def test_an_errors_values_of_any_type_are_stored_at_least_as_text(history: History) -> None:
    _, question = asked(history)
    answer = history.start_answer(question.conversation, ME, parent=question.uuid, model="m")
    values = {"path": Path("x") / "y", "name": "\udcff"}
    failed = history.finish_answer(answer.uuid, text="", state="failed", error=Failed("data.unwritable", values))
    assert failed.error == Failed("data.unwritable", {"path": str(Path("x") / "y"), "name": "?"})


def test_only_the_first_end_of_an_answer_counts(history: History) -> None:
    _, question = asked(history)
    answer = history.start_answer(question.conversation, ME, parent=question.uuid, model="m")
    stopped = history.finish_answer(answer.uuid, text="A re", state="stopped", finish_reason="stopped")
    history.flush_answer(answer.uuid, "too late")
    assert history.finish_answer(answer.uuid, text="too late", state="done") == stopped
    assert history.message(answer.uuid, ME) == stopped


def test_regenerating_and_editing_make_branches_and_overwrite_nothing(history: History) -> None:
    conversation, question = asked(history)
    first = answered(history, question, "A circle.")
    follow = history.add_question(conversation.uuid, ME, parent=first.uuid, text="Its colour?")
    red = answered(history, follow, "Red.")
    second = answered(history, question, "A disc.")  # regenerated
    edited = history.add_question(conversation.uuid, ME, parent=None, text="What is that?")  # edited

    assert history.siblings(first.uuid, ME) == [first, second] == history.siblings(second.uuid, ME)
    assert history.siblings(question.uuid, ME) == [question, edited]
    assert history.branch(conversation.uuid, ME) == [edited]
    assert history.branch(conversation.uuid, ME, leaf=red.uuid) == [question, first, follow, red]
    assert history.branch(conversation.uuid, ME, leaf=second.uuid) == [question, second]
    assert history.messages(conversation.uuid, ME) == [question, first, follow, red, second, edited]
    history.update_conversation(conversation.uuid, ME, leaf=red.uuid)
    assert history.branch(conversation.uuid, ME) == [question, first, follow, red]


def test_a_branch_of_a_thousand_messages_is_read_whole(history: History) -> None:
    conversation, _ = asked(history, "0")
    with history._database.write() as db:  # faster than a thousand separate transactions
        key = db.execute("select id from messages").fetchone()[0]
        for number in range(1, 1000):
            role = ("user", "assistant")[number % 2]
            key = db.execute(
                "insert into messages (uuid, conversation, parent, role, text, state, created_utc)"
                " select ?, conversation, id, ?, ?, 'done', created_utc from messages where id = ?",
                (f"uuid {number}", role, str(number), key),
            ).lastrowid
    branch = history.branch(conversation.uuid, ME, leaf="uuid 999")
    assert [message.text for message in branch] == [str(number) for number in range(1000)]


def test_a_parent_must_be_in_the_same_conversation(history: History) -> None:
    one, question = asked(history)
    two, _ = asked(history)
    for call in (
        lambda: history.add_question(two.uuid, ME, parent=question.uuid, text="x"),
        lambda: history.start_answer(two.uuid, ME, parent=question.uuid, model="m"),
        lambda: history.update_conversation(two.uuid, ME, leaf=question.uuid),
        lambda: history.branch(two.uuid, ME, leaf=question.uuid),
        lambda: history.start_answer(one.uuid, ME, parent=NOWHERE, model="m"),
    ):
        with pytest.raises(HistoryError) as caught:
            call()
        assert caught.value.code == "history.no_message"
    assert len(history.messages(two.uuid, ME)) == 1


def test_any_text_can_be_kept(history: History) -> None:
    for text in ("", "\0", "a\0b", "🐱👨‍👩‍👧", "' \" ; drop table messages --", "line\r\nline\u2028", "x" * 1_000_000):
        assert asked(history, text)[1].text == text
    assert asked(history, "half a pair \ud83d.")[1].text == "half a pair ?."


# Owners


CALLS: list[tuple[str, Callable[[History, str, str, str], object]]] = [
    ("conversation", lambda h, c, m, owner: h.conversation(c, owner)),
    ("odd name", lambda h, c, m, owner: h.conversation("\udcff", owner)),  # an invalid byte in an argument
    ("odd message", lambda h, c, m, owner: h.message("\udcff\0", owner)),
    ("tree", lambda h, c, m, owner: h.tree(c, owner)),
    ("messages", lambda h, c, m, owner: h.messages(c, owner)),
    ("branch", lambda h, c, m, owner: h.branch(c, owner)),
    ("update", lambda h, c, m, owner: h.update_conversation(c, owner, title="mine now", leaf=m)),
    ("delete", lambda h, c, m, owner: h.delete_conversation(c, owner)),
    ("restore", lambda h, c, m, owner: h.restore_conversation(c, owner)),
    ("purge", lambda h, c, m, owner: h.purge_conversation(c, owner)),
    ("question", lambda h, c, m, owner: h.add_question(c, owner, parent=None, text="x")),
    ("answer", lambda h, c, m, owner: h.start_answer(c, owner, parent=m, model="m")),
    ("message", lambda h, c, m, owner: h.message(m, owner)),
    ("siblings", lambda h, c, m, owner: h.siblings(m, owner)),
]


@pytest.mark.parametrize("call", [call for _, call in CALLS], ids=[name for name, _ in CALLS])
def test_data_of_another_owner_looks_as_if_it_did_not_exist(
    history: History, call: Callable[[History, str, str, str], object]
) -> None:
    conversation, question = asked(history)
    before = history.tree(conversation.uuid, ME)
    with pytest.raises(HistoryError) as of_another:
        call(history, conversation.uuid, question.uuid, OTHER)
    with pytest.raises(HistoryError) as not_there:
        call(history, NOWHERE, NOWHERE, OTHER)
    assert of_another.value.code == not_there.value.code
    assert of_another.value.code in ("history.no_conversation", "history.no_message")
    assert of_another.value.sentence() == not_there.value.sentence()
    assert history.tree(conversation.uuid, ME) == before


def test_lists_searches_and_pictures_are_separate_for_each_owner(history: History) -> None:
    red = history.add_image(picture("red"), ME)
    asked(history, "A secret question")
    assert history.conversations(OTHER) == [] and history.search(OTHER, "secret") == []
    assert history.image_of(ME, red.sha256) and not history.image_of(OTHER, red.sha256)
    conversation, _ = asked(history, owner=OTHER)
    for call in (
        lambda: history.add_question(conversation.uuid, OTHER, parent=None, text="x", images=[red.sha256]),
        lambda: history.update_conversation(conversation.uuid, OTHER, title="x", draft_images=[red.sha256]),
    ):
        with pytest.raises(HistoryError) as caught:
            call()
        assert caught.value.code == "history.no_image"
    assert history.conversation(conversation.uuid, OTHER) == conversation
    assert len(history.messages(conversation.uuid, OTHER)) == 1


# Pictures


def test_a_picture_is_stored_once_however_often_it_is_given(history: History, file: Path) -> None:
    red = picture("red")
    assert history.add_image(red, ME) == history.add_image(red, ME) == history.add_image(red, OTHER) == red.image
    assert image_files(file) == [f"{red.image.sha256}.png"]
    assert history.image(red.image.sha256) == red.image
    assert history.image_bytes(red.image.sha256) == red.data
    assert history.image_of(ME, red.image.sha256) and history.image_of(OTHER, red.image.sha256)


def test_a_lost_picture_file_is_reported_and_restored_when_added_again(history: History, file: Path) -> None:
    red = picture("red")
    history.add_image(red, ME)
    (file.parent / "images" / red.image.sha256[:2] / f"{red.image.sha256}.png").unlink()
    with pytest.raises(HistoryError) as caught:
        history.image_bytes(red.image.sha256)
    assert caught.value.code == "history.image_missing"
    history.add_image(red, ME)
    assert history.image_bytes(red.image.sha256) == red.data


def test_an_invalid_hash_reads_no_file(history: History, file: Path) -> None:
    (file.parent / "secret.png").write_bytes(b"secret")
    for name in ("../secret", "", "ab", "../../etc/passwd", "0" * 64, "\udcff", "\0"):
        with pytest.raises(HistoryError) as caught:
            history.image_bytes(name)
        assert caught.value.code == "history.no_image"
        assert not history.image_of(ME, name)


def test_purging_removes_pictures_that_nothing_else_of_the_owner_uses(history: History, file: Path) -> None:
    red, blue, green, grey = (history.add_image(picture(colour), ME) for colour in ("red", "blue", "green", "grey"))
    history.add_image(picture("green"), OTHER)
    purged, kept = history.create_conversation(ME), history.create_conversation(ME)
    shown = [red.sha256, blue.sha256, green.sha256]
    history.add_question(purged.uuid, ME, parent=None, text="Secret words", images=shown)
    history.update_conversation(purged.uuid, ME, draft_images=[grey.sha256])
    history.update_conversation(kept.uuid, ME, draft_images=[blue.sha256])

    history.purge_conversation(purged.uuid, ME)

    assert image_files(file) == sorted(f"{sha256}.png" for sha256 in (blue.sha256, green.sha256))
    assert [history.image_of(ME, image.sha256) for image in (red, blue, green, grey)] == [False, True, False, False]
    assert history.image_of(OTHER, green.sha256)
    assert history.search(ME, "Secret") == [] and [c.uuid for c in history.conversations(ME)] == [kept.uuid]
    with pytest.raises(HistoryError):
        history.image(red.sha256)
    assert is_whole(file)


def test_a_picture_removed_from_the_draft_is_deleted_unless_it_is_used(history: History, file: Path) -> None:
    red, blue = history.add_image(picture("red"), ME), history.add_image(picture("blue"), ME)
    one, two = history.create_conversation(ME).uuid, history.create_conversation(ME).uuid
    history.update_conversation(one, ME, draft_images=[red.sha256, blue.sha256])
    history.update_conversation(two, ME, draft_images=[blue.sha256])
    history.update_conversation(one, ME, draft_images=[])
    assert image_files(file) == [f"{blue.sha256}.png"]
    assert not history.image_of(ME, red.sha256) and history.image_of(ME, blue.sha256)


def test_unsent_pictures_of_the_draft_are_deleted(history: History, file: Path) -> None:
    red, blue = history.add_image(picture("red"), ME), history.add_image(picture("blue"), ME)
    uuid = history.create_conversation(ME).uuid
    history.update_conversation(uuid, ME, draft_images=[red.sha256, blue.sha256])
    history.add_question(uuid, ME, parent=None, text="Q", images=[blue.sha256])
    assert image_files(file) == [f"{blue.sha256}.png"]


def test_an_edited_question_can_leave_the_draft_as_it_is(history: History, file: Path) -> None:
    red = history.add_image(picture("red"), ME)
    uuid = history.create_conversation(ME).uuid
    before = history.update_conversation(uuid, ME, draft="And", draft_images=[red.sha256])
    history.add_question(uuid, ME, parent=None, text="Q", keep_draft=True)
    after = history.conversation(uuid, ME)
    assert (after.draft, after.draft_images) == (before.draft, before.draft_images)
    assert image_files(file) == [f"{red.sha256}.png"]


def test_a_picture_half_written_by_a_killed_process_is_removed(history: History, file: Path) -> None:
    history.add_image(picture("red"), ME)
    half = file.parent / "images" / ("0" * 64 + ".png.part")
    half.write_bytes(b"half")
    History(file).close()
    assert not half.exists() and len(image_files(file)) == 1


def test_a_writer_gets_an_error_when_its_conversation_was_purged(history: History, file: Path) -> None:
    conversation, question = asked(history)
    answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="m")
    history.purge_conversation(conversation.uuid, ME)
    for call in (
        lambda: history.flush_answer(answer.uuid, "A"),
        lambda: history.finish_answer(answer.uuid, text="A", state="done"),
    ):
        with pytest.raises(HistoryError) as caught:
            call()
        assert caught.value.code == "history.no_message"
    assert is_whole(file)


# Threads


def test_many_threads_write_and_read_through_one_history(history: History, file: Path) -> None:
    conversation, question = asked(history)

    def work(number: int) -> None:
        for _ in range(5):
            history.add_image(picture("red", side=number + 1), ME)
            answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model=str(number))
            history.flush_answer(answer.uuid, "A")
            history.finish_answer(answer.uuid, text=f"Answer {number}", state="done")
            assert history.branch(conversation.uuid, ME)[0] == question

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))  # raises what a thread raised
    assert len(history.siblings(history.messages(conversation.uuid, ME)[1].uuid, ME)) == 30
    assert len(image_files(file)) == 6 and is_whole(file)


# Errors


def test_a_full_disk_while_streaming_is_reported_and_keeps_what_was_saved(history: History, file: Path) -> None:
    conversation, question = asked(history)
    answer = history.start_answer(conversation.uuid, ME, parent=question.uuid, model="m")
    history.flush_answer(answer.uuid, "The beginning")
    with history._database.read() as db:  # simulates a full disk: SQLite adds no page
        db.execute(f"pragma max_page_count = {db.execute('pragma page_count').fetchone()[0]}")
    for call in (
        lambda: history.flush_answer(answer.uuid, "The beginning" + " and more" * 50_000),
        lambda: history.finish_answer(answer.uuid, text="x" * 500_000, state="done"),
        lambda: history.add_question(conversation.uuid, ME, parent=None, text="x" * 500_000),
    ):
        with pytest.raises(HistoryError) as caught:
            call()
        assert caught.value.code == "history.disk_full" and str(file) in caught.value.sentence()
    assert history.message(answer.uuid, ME).text == "The beginning"
    assert history.finish_answer(answer.uuid, text="The", state="failed").state == "failed"  # a short write still fits
    with history._database.read() as db:
        db.execute("pragma max_page_count = 1000000")
    history.add_question(conversation.uuid, ME, parent=None, text="x" * 500_000)
    assert is_whole(file)


FULL_DISK = """
import resource, sys
from pathlib import Path
from impchat.history.mutations import now
from impchat.errors import HistoryError
from impchat.history.store import History
from impchat.images import Prepared
from impchat.messages import Image
import hashlib, os

file = Path(sys.argv[1])
history = History(file)
conversation = history.create_conversation("me")
data = os.urandom(400_000)
picture = Prepared(data, Image(hashlib.sha256(data).hexdigest(), 1, 1, "image/jpeg", len(data)))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))  # from now on larger files fail
for call in (
    lambda: history.add_image(picture, "me"),
    lambda: history.add_question(conversation.uuid, "me", parent=None, text="x" * 1_000_000),
):
    try:
        call()
        print("no error")
    except HistoryError as error:
        print(error.code)
print(history.image_of("me", picture.image.sha256), [p.name for p in (file.parent / "images").rglob("*.*")])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
history.add_image(picture, "me")
history.add_question(conversation.uuid, "me", parent=None, text="x" * 1_000_000, images=[picture.image.sha256])
print(history.image_bytes(picture.image.sha256) == data)
history.close()
"""


def test_a_full_disk_is_reported_and_partial_pictures_are_removed(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL_DISK, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["history.disk_full", "history.disk_full", "False []", "True"]
    assert is_whole(file)


def test_a_file_locked_by_another_program_is_reported_after_the_timeout(history: History, file: Path) -> None:
    conversation, _ = asked(history)
    impatient = History(file, busy_timeout_s=0.05)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(HistoryError) as caught:
        impatient.add_question(conversation.uuid, ME, parent=None, text="x")
    assert caught.value.code == "history.locked" and str(file) in caught.value.sentence()
    assert len(impatient.messages(conversation.uuid, ME)) == 1  # reading still works
    with pytest.raises(HistoryError) as caught:
        History(file, busy_timeout_s=0.05)
    assert caught.value.code == "history.locked"
    other.execute("rollback")
    other.close()
    assert impatient.add_question(conversation.uuid, ME, parent=None, text="x").text == "x"
    impatient.close()


@pytest.mark.parametrize("content", [b"Dear diary", b"SQLite format 3\0" + bytes(4096), b"\xff" * 10_000])
def test_a_file_that_is_no_history_is_reported_and_left_unchanged(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(HistoryError) as caught:
        History(file)
    assert caught.value.code == "history.broken"
    assert file.read_bytes() == content


def test_a_damaged_file_is_reported(file: Path) -> None:
    history = History(file)
    for number in range(50):
        asked(history, f"Question {number} " + "x" * 1000)
    history.close()
    damaged = bytearray(file.read_bytes())
    damaged[4096 * 4 : 4096 * 20] = b"\xaa" * (4096 * 16)
    file.write_bytes(damaged)
    with pytest.raises(HistoryError) as caught:
        history = History(file)
        history.conversations(ME)
        for conversation in history.conversations(ME):
            history.messages(conversation.uuid, ME)
    assert caught.value.code == "history.broken"


def test_a_data_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(HistoryError) as caught:
            History(data / "history.db")
        assert caught.value.code == "data.unwritable" and str(data) in caught.value.sentence()


def test_a_folder_in_place_of_the_file_is_reported(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(HistoryError) as caught:
        History(file)
    assert caught.value.code == "data.unwritable"


READ_ONLY = """
import os, sys
from pathlib import Path
import sqlite_utils.migrations
from impchat.history.mutations import now
from impchat.errors import HistoryError
from impchat.history.store import History

if os.geteuid() == 0:
    os.setuid(65534)  # permissions do not bind the administrator
try:
    History(Path(sys.argv[1]))
except HistoryError as error:
    print(error.code)
"""


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_data_folder_without_permission_is_reported(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # unlike tmp_path, it can be opened to another user
        file = Path(folder) / "data" / "history.db"
        History(file).close()
        os.chmod(folder, 0o755)
        os.chmod(file.parent, mode)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", READ_ONLY, str(file)], capture_output=True, text=True, check=True
        )
        os.chmod(file.parent, 0o700)
    assert done.stdout == "data.unwritable\n"


# Pictures across conversations


def test_the_photo_library_lists_each_picture_once_by_its_latest_question(history: History) -> None:
    first, second = history.create_conversation(ME), history.create_conversation(ME)
    red, blue = history.add_image(picture("red"), ME), history.add_image(picture("blue"), ME)
    history.add_question(first.uuid, ME, parent=None, text="Both?", images=[red.sha256, blue.sha256])
    again = history.add_question(second.uuid, ME, parent=None, text="Red again", images=[red.sha256])
    found = history.pictures(ME)
    assert [(asked.image, asked.conversation) for asked in found] == [
        (red.sha256, second.uuid),
        (blue.sha256, first.uuid),
    ]
    assert (found[0].message, found[0].title) == (again.uuid, "Red again")
    assert history.covers(ME, [first.uuid, second.uuid]) == {first.uuid: red.sha256, second.uuid: red.sha256}
    history.delete_conversation(second.uuid, ME)
    assert [asked.conversation for asked in history.pictures(ME)] == [first.uuid, first.uuid]
    assert history.pictures("somebody else") == []
    assert history.covers("somebody else", [first.uuid]) == {}
