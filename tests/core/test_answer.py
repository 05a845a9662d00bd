"""A running answer belongs to the core: readers can come and go, and its text is saved while it grows."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from impchat import paths, settings
from impchat.answer import Answer
from impchat.app import App, choose_bundle
from impchat.errors import ChatError, EngineError, HistoryError
from impchat.history.store import History
from impchat.messages import Dropped, Event, Failed, Finished, Message, Reading, Stats, Text
from impchat.peers.servers import at
from tests.core.scripted import SECONDS, ScriptedEngine

ME = settings.OWNER


class WatchedHistory(History):
    """A History that signals when an answer was flushed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, busy_timeout_s=0.2)
        self.flushed = threading.Semaphore(0)
        self.flush_failed = threading.Event()

    def flush_answer(self, uuid: str, text: str) -> None:
        try:
            super().flush_answer(uuid, text)
        except HistoryError:
            self.flush_failed.set()
            raise
        self.flushed.release()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def app(tmp_path: Path, engine: ScriptedEngine) -> Iterator[App]:
    with App(tmp_path, WatchedHistory(paths.history_file(tmp_path)), None, engine) as app:
        yield app


def events(answer: Answer, after: int = 0) -> list[tuple[int, Event]]:
    return list(answer.events(after, timeout_s=SECONDS))


def stored(app: App, answer: Answer) -> Message:
    """The message as another process reads it."""
    with closing(History(paths.history_file(app.data))) as history:
        return history.message(answer.message, ME)


def test_events_are_numbered_from_one_to_the_last(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    engine.next().finish(Reading(0, 9), "Good ", "day", generated_tokens=2)

    assert events(answer) == [
        (1, Reading(0, 9)),
        (2, Text("Good ")),
        (3, Text("day")),
        (4, Finished("stop", Stats(generated_tokens=2))),
    ]
    assert answer.text == "Good day"
    assert answer.state == "done"


def test_every_reader_gets_every_event_whenever_it_comes(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    read: list[list[tuple[int, Event]]] = []
    readers = [threading.Thread(target=lambda: read.append(events(answer))) for _ in range(4)]
    for reader in readers[:2]:
        reader.start()
    script.say("Good ")
    first = next(answer.events(timeout_s=SECONDS))
    for reader in readers[2:]:
        reader.start()
    script.finish("day")
    for reader in readers:
        reader.join(SECONDS)

    assert first == (1, Text("Good "))
    assert len(read) == 4
    assert all(seen == events(answer) for seen in read)


def test_a_reader_that_returns_continues_after_its_last_event(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ", "day")
    number = next(answer.events(timeout_s=SECONDS))[0]
    script.finish()

    found = app.answer(answer.message)
    assert [event for _, event in events(found, after=number)] == [Text("day"), Finished("stop", Stats())]


def test_a_reader_can_wait_with_a_timeout(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    engine.next().say("Good ")
    assert next(answer.events(timeout_s=SECONDS)) == (1, Text("Good "))

    assert list(answer.events(after=1, timeout_s=0.01)) == []
    assert answer.wait(timeout_s=0.01).state == "streaming"


def test_an_answer_continues_when_its_reader_leaves(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    reader = answer.events(timeout_s=SECONDS)
    next(reader)
    del reader
    script.finish("day")

    assert answer.wait(SECONDS).text == "Good day"
    assert not script.stopped


def test_a_finished_answer_is_whole_on_disk_before_its_last_event(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    engine.next().finish(Dropped(2, 300), "Good day", tokens=(5, 6), prompt_tokens=9)
    last = events(answer)[-1][1]

    row = stored(app, answer)
    assert isinstance(last, Finished)
    assert row == answer.wait(SECONDS)
    assert (row.text, row.state, row.finish_reason, row.tokens) == ("Good day", "done", "stop", (5, 6))
    assert (row.stats, row.dropped_turns, row.model) == (Stats(prompt_tokens=9), 2, "scripted-1")


def test_an_answer_is_rebuilt_from_the_history_after_a_restart(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with App.open(tmp_path, engine=engine) as app:
        answer = app.chat().send("Hello")
        engine.next().finish("Good ", "day", tokens=(5, 6))
        answer.wait(SECONDS)

    with App.open(tmp_path, engine=ScriptedEngine()) as app:
        again = app.answer(answer.message)
        assert again.text == "Good day"
        assert events(again) == [(1, Text("Good day")), (2, Finished("stop", Stats(), (5, 6)))]
        assert events(again, after=2) == []
        assert events(again, after=40) == events(again), (
            "a number from before the restart: the text is repeated from its beginning"
        )


def test_stop_keeps_the_text_so_far(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    next(answer.events(timeout_s=SECONDS))
    answer.stop()
    row = answer.wait(SECONDS)

    assert script.stopped
    assert (row.text, row.state, row.finish_reason) == ("Good ", "stopped", "stopped")
    assert stored(app, answer) == row
    answer.stop()
    assert answer.state == "stopped"


class SlowlyLoaded(App):
    """An App that loads its model when the test allows it."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, History(paths.history_file(data)), choose_bundle(data), None)
        self.loading, self.go_on = threading.Event(), threading.Event()

    def _load(self, *work: Any) -> None:
        self.loading.set()
        assert self.go_on.wait(SECONDS)
        super()._load(*work)


@pytest.fixture
def slowly(tmp_path: Path) -> Iterator[SlowlyLoaded]:
    with SlowlyLoaded(tmp_path) as app:
        yield app
        app.go_on.set()


def test_stop_works_while_the_model_loads(slowly: SlowlyLoaded) -> None:
    answer = slowly.chat().send("Hello")
    assert slowly.loading.wait(SECONDS)
    answer.stop()
    assert answer.wait(SECONDS).state == "stopped"
    assert not slowly.loaded


def test_a_stop_while_the_model_loads_does_not_cancel_the_load_for_the_next_question(slowly: SlowlyLoaded) -> None:
    chat = slowly.chat()
    stopped = chat.send("Hello")
    stopped.stop()
    stopped.wait(SECONDS)
    answer = chat.send("Hello")
    slowly.go_on.set()
    assert answer.wait(SECONDS).state == "done"


def test_closing_does_not_wait_for_a_loading_model(tmp_path: Path) -> None:
    app = SlowlyLoaded(tmp_path)
    answer = app.chat().send("Hello")
    opened = app.opened()
    assert app.loading.wait(SECONDS)
    app.close()
    assert answer.state == "stopped"
    app.go_on.set()
    with pytest.raises(EngineError) as raised:  # the engine is closed as soon as it has loaded
        opened.result(SECONDS)
    assert raised.value.code == "engine.closed"


def test_a_question_to_a_server_does_not_wait_for_the_local_model_to_load(slowly: SlowlyLoaded) -> None:
    slowly.chat().send("Hello")
    assert slowly.loading.wait(SECONDS)
    chat = slowly.chat(server=at("http://127.0.0.1:9"))
    assert chat.send("Hello").wait(SECONDS).state == "failed"  # nothing listens there, but it was asked
    assert not slowly.loaded


def test_streaming_text_reaches_the_disk_while_the_engine_is_silent(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    assert isinstance(app.history, WatchedHistory)
    assert app.history.flushed.acquire(timeout=SECONDS)

    row = stored(app, answer)
    assert (row.text, row.state) == ("Good ", "streaming")
    script.finish()


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (lambda script: script.crash(EngineError("engine.closed")), "engine.closed"),
        (lambda script: script.say(Failed("engine.closed", {})), "engine.closed"),
        (lambda script: script.break_off(), "answer.no_end"),
    ],
    ids=["raised", "told", "broken off"],
)
def test_an_engine_that_fails_ends_the_answer_and_keeps_its_text(app: App, engine: ScriptedEngine, fail, code) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    fail(script)

    assert events(answer) == [(1, Text("Good ")), (2, Failed(code, {}))]
    row = stored(app, answer)
    assert (row.text, row.state, row.error) == ("Good ", "failed", Failed(code, {}))
    app.chat(answer.conversation).send("Again")  # the conversation accepts the next question
    engine.next().finish()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unexpected_exception_ends_the_answer_too(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    engine.next().crash(ZeroDivisionError())

    assert events(answer) == [(1, Failed("answer.no_end", {}))]
    assert stored(app, answer).state == "failed"
    for thread in threading.enumerate():  # let pytest report the exception in this test
        if thread.name == "answer-_take":
            thread.join(SECONDS)


def test_closing_the_app_keeps_a_running_answer_as_stopped(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    app = App.open(tmp_path, engine=engine)
    answer = app.chat().send("Hello")
    engine.next().say("Good ")
    next(answer.events(timeout_s=SECONDS))
    app.close()
    app.close()

    assert engine.closed
    assert answer.state == "stopped"
    row = stored(app, answer)
    assert (row.text, row.state) == ("Good ", "stopped")


def test_an_answer_that_another_process_writes_can_be_followed(tmp_path: Path) -> None:
    theirs, engine = ScriptedEngine(), ScriptedEngine()
    with App.open(tmp_path, engine=theirs) as writer, App.open(tmp_path, engine=engine) as reader:
        answer = writer.chat().send("Hello")
        script = theirs.next()
        script.say("Good ")
        followed = reader.answer(answer.message)
        seen = followed.events(timeout_s=SECONDS)
        assert next(seen) == (1, Text("Good "))
        with pytest.raises(ChatError, match="Another running ImpChat"):
            followed.stop()
        with pytest.raises(ChatError, match="still being written"):
            reader.chat(answer.conversation).send("And now?")
        script.finish("day")
        assert "".join(e.text for _, e in seen if isinstance(e, Text)) == "day"
        assert followed.wait(SECONDS).state == "done"


# The history fails during an answer


def fill_disk(history: History) -> None:
    """From now on SQLite reports a full disk as soon as the file would grow."""
    with history._database.write() as db:
        pages = db.execute("pragma page_count").fetchone()[0]
        db.execute(f"pragma max_page_count = {pages}")


def free_disk(history: History) -> None:
    with history._database.write() as db:
        db.execute("pragma max_page_count = 1000000")


def is_whole(app: App) -> bool:
    with closing(sqlite3.connect(paths.history_file(app.data))) as db:
        return db.execute("pragma integrity_check").fetchone()[0] == "ok"


LONG = "A long story. " * 20_000  # needs pages that a full disk cannot provide


def test_a_full_disk_during_an_answer_ends_in_one_sentence_and_keeps_what_was_saved(
    app: App, engine: ScriptedEngine
) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    assert isinstance(app.history, WatchedHistory)
    assert app.history.flushed.acquire(timeout=SECONDS)
    fill_disk(app.history)
    script.say(LONG)
    assert app.history.flush_failed.wait(SECONDS)
    script.finish("The end.")
    seen = [event for _, event in events(answer)]

    assert [e.text for e in seen if isinstance(e, Text)] == ["Good ", LONG, "The end."], (
        "the answer continues in memory"
    )
    assert isinstance(seen[-1], Failed)
    assert seen[-1].code == "history.disk_full"
    assert answer.state == "failed"
    assert stored(app, answer).text == "Good "
    assert is_whole(app)

    free_disk(app.history)
    later = app.chat(answer.conversation).send("Is there room again?")
    engine.next().finish("Yes")
    assert later.wait(SECONDS).state == "done"
    row = stored(app, answer)
    assert (row.text, row.state) == ("Good " + LONG + "The end.", "failed"), "saved as soon as there is space"


def test_a_full_disk_that_has_room_again_by_the_end_loses_nothing(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    assert isinstance(app.history, WatchedHistory)
    fill_disk(app.history)
    script.say(LONG)
    assert app.history.flush_failed.wait(SECONDS)
    free_disk(app.history)
    script.finish()

    assert answer.wait(SECONDS).state == "done"
    assert stored(app, answer).text == LONG


def test_a_locked_database_during_an_answer_ends_in_one_sentence(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    with closing(sqlite3.connect(paths.history_file(app.data), isolation_level=None)) as other:
        other.execute("begin immediate")
        script.finish("day")
        last = events(answer)[-1][1]
        assert isinstance(last, Failed)
        assert last.code == "history.locked"
        other.execute("rollback")
    app.close()

    assert stored(app, answer).text == "Good day", "closing tries to save again"
    assert is_whole(app)


def test_a_locked_database_refuses_the_question_in_one_sentence(app: App, engine: ScriptedEngine) -> None:
    first = app.chat().send("Hello")
    engine.next().finish("Good day")
    first.wait(SECONDS)
    with closing(sqlite3.connect(paths.history_file(app.data), isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(HistoryError) as caught:
            app.chat(first.conversation).send("And now?")
        assert caught.value.code == "history.locked"
        other.execute("rollback")
    assert engine.idle()
    assert len(app.chat(first.conversation).branch()) == 2
    second = app.chat(first.conversation).send("And now?")
    engine.next().finish("Now")
    assert second.wait(SECONDS).state == "done", "the conversation accepts the next question"


def test_a_long_answer_can_be_stopped_however_many_others_ended_meanwhile(app: App, engine: ScriptedEngine) -> None:
    long = app.chat().send("Hello")
    script = engine.next()
    for _ in range(settings.ANSWERS_KEPT + 1):
        other = app.chat().send("Hello")
        engine.next().finish("Hi")
        assert other.wait(SECONDS).state == "done"
    app.answer(long.message, ME).stop()
    assert script.stopped
    assert long.wait(SECONDS).state == "stopped"


def test_an_answer_of_a_chat_that_is_removed_for_good_ends(app: App, engine: ScriptedEngine) -> None:
    answer = app.chat().send("Hello")
    script = engine.next()
    script.say("Good ")
    app.history.purge_conversation(answer.conversation, ME)
    end = answer.wait(SECONDS)
    assert script.stopped
    assert (end.state, end.error) == ("failed", Failed("history.no_message", {"message": answer.message}))
    assert app._answers._unsaved == []  # it is not saved again and again


def test_a_question_in_a_deleted_chat_restores_it(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Hello")
    engine.next().finish("Hi")
    answer.wait(SECONDS)
    app.history.delete_conversation(answer.conversation, ME)
    app.chat(answer.conversation).save_draft("And")
    assert app.history.conversations(ME) == []
    later = app.chat(answer.conversation).send("And now?")
    engine.next().finish("Now")
    assert later.wait(SECONDS).state == "done"
    assert [each.uuid for each in app.history.conversations(ME)] == [answer.conversation]
