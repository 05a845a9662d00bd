"""Several real processes share one history: none is locked out, nothing is lost, and only answers of dead processes
are marked as interrupted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from impchat.history.store import History

ME = "me"

# Reads one command per line and answers each with one line, so that a test controls the order of events.
PROCESS = """
import sys
from pathlib import Path
import sqlite_utils.migrations
from impchat.history.store import History

histories = {}
for line in sys.stdin:
    command, file, *rest = line.split()
    if command == "open":
        histories[file] = History(Path(file), busy_timeout_s=300)  # however slow the machine is
        reply = histories[file].create_conversation("me", "opened").uuid
    elif command == "write":
        history = histories[file]
        conversation = history.conversations("me", limit=1)[0].uuid
        for number in range(int(rest[0])):
            history.conversation(conversation, "me")
            question = history.add_question(conversation, "me", parent=None, text=f"question {number}")
            answer = history.start_answer(conversation, "me", parent=question.uuid, model="m")
            history.flush_answer(answer.uuid, "A")
            history.finish_answer(answer.uuid, text="An answer", state="done")
            if len(rest) > 1:
                print(question.uuid, flush=True)
        reply = "written"
    elif command == "stream":
        history = histories[file]
        conversation = history.create_conversation("me").uuid
        question = history.add_question(conversation, "me", parent=None, text="Q")
        answer = history.start_answer(conversation, "me", parent=question.uuid, model="m")
        history.flush_answer(answer.uuid, "The first words")
        reply = answer.uuid
    elif command == "flush":
        histories[file].flush_answer(rest[0], "More words")
        reply = "flushed"
    elif command == "finish":
        reply = histories[file].finish_answer(rest[0], text="All words", state="done").state
    elif command == "close":
        histories.pop(file).close()
        reply = "closed"
    print(reply, flush=True)
"""


class Process:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def tell(self, *words: object) -> None:
        assert self._process.stdin
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def reply(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return line.strip()

    def ask(self, *words: object) -> str:
        self.tell(*words)
        return self.reply()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> int:
        """Close its standard input and return its exit status."""
        self._process.communicate()
        return self._process.returncode


@pytest.fixture
def start() -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process())
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def set_writer(file: Path, **columns: object) -> None:
    with sqlite3.connect(file) as db:
        for name, value in columns.items():
            db.execute(f"update writers set {name} = ?", (value,))
    db.close()


def test_processes_that_open_a_new_file_at_the_same_time_all_succeed(
    start: Callable[[], Process], tmp_path: Path
) -> None:
    processes = [start() for _ in range(3)]
    for number in range(12):
        file = tmp_path / str(number) / "history.db"
        for process in processes:
            process.tell("open", file)
        made = {process.reply() for process in processes}
        history = History(file)
        assert {conversation.uuid for conversation in history.conversations(ME)} == made and len(made) == 3
        history.close()
        assert [process.ask("close", file) for process in processes] == ["closed"] * 3
        assert list((file.parent / "writers").iterdir()) == []


def test_processes_that_write_at_the_same_time_lose_nothing(start: Callable[[], Process], file: Path) -> None:
    processes = [start() for _ in range(3)]
    for process in processes:
        process.ask("open", file)
    for process in processes:
        process.tell("write", file, 25)
    assert [process.reply() for process in processes] == ["written"] * 3
    history = History(file)
    messages = [m for c in history.conversations(ME) for m in history.messages(c.uuid, ME)]
    assert len(messages) == 3 * 25 * 2 and {message.state for message in messages} == {"done"}
    assert len(history.search(ME, "question", limit=1000)) == 3 * 25
    history.close()


def test_only_a_dead_writers_answer_becomes_interrupted(start: Callable[[], Process], file: Path) -> None:
    dead, living = start(), start()
    dead.ask("open", file)
    living.ask("open", file)
    lost, going_on = dead.ask("stream", file), living.ask("stream", file)
    dead.kill()

    history = History(file)
    assert (history.message(lost, ME).state, history.message(lost, ME).text) == ("interrupted", "The first words")
    assert [hit.message for hit in history.search(ME, "first words")] == [lost]
    assert history.message(going_on, ME).state == "streaming"

    assert living.ask("flush", file, going_on) == "flushed"
    assert living.ask("finish", file, going_on) == "done"
    assert (history.message(going_on, ME).state, history.message(going_on, ME).text) == ("done", "All words")
    history.close()


def test_a_dead_writer_is_noticed_without_reopening_the_history(start: Callable[[], Process], file: Path) -> None:
    history = History(file)
    dead = start()
    dead.ask("open", file)
    lost = dead.ask("stream", file)
    assert history.mark_interrupted() == 0
    dead.kill()
    assert history.mark_interrupted() == 1 and history.mark_interrupted() == 0
    assert history.message(lost, ME).state == "interrupted"
    history.close()


def test_a_dead_writer_is_recognised_although_its_process_id_was_reused(
    start: Callable[[], Process], file: Path
) -> None:
    dead = start()
    dead.ask("open", file)
    lost = dead.ask("stream", file)
    dead.kill()
    set_writer(file, pid=os.getpid())
    history = History(file)
    assert history.message(lost, ME).state == "interrupted"
    history.close()


def test_a_writer_that_closed_during_an_answer_counts_as_ended(file: Path) -> None:
    first = History(file)
    conversation = first.create_conversation(ME).uuid
    question = first.add_question(conversation, ME, parent=None, text="Q")
    answer = first.start_answer(conversation, ME, parent=question.uuid, model="m")
    first.close()
    second = History(file)
    assert second.message(answer.uuid, ME).state == "interrupted"
    second.close()


def test_a_second_history_in_the_same_process_does_not_interrupt_the_firsts_answers(file: Path) -> None:
    first = History(file)
    conversation = first.create_conversation(ME).uuid
    question = first.add_question(conversation, ME, parent=None, text="Q")
    answer = first.start_answer(conversation, ME, parent=question.uuid, model="m")
    second = History(file)
    assert second.message(answer.uuid, ME).state == "streaming"
    second.close()
    assert first.finish_answer(answer.uuid, text="A", state="done").state == "done"
    first.close()


def test_a_writer_on_another_machine_counts_as_dead_after_long_silence(
    start: Callable[[], Process], file: Path
) -> None:
    dead = start()
    dead.ask("open", file)
    answer = dead.ask("stream", file)
    dead.kill()
    set_writer(file, host="another machine")  # whose locks may be invisible here
    history = History(file)
    assert history.message(answer, ME).state == "streaming"
    set_writer(file, heartbeat_utc="2020-01-01T00:00:00.000Z")
    assert history.mark_interrupted() == 1
    assert history.message(answer, ME).state == "interrupted"
    history.close()


def test_a_writer_wrongly_taken_for_dead_continues_its_answer(start: Callable[[], Process], file: Path) -> None:
    history = History(file)
    conversation = history.create_conversation(ME).uuid
    question = history.add_question(conversation, ME, parent=None, text="Q")
    answer = history.start_answer(conversation, ME, parent=question.uuid, model="m")
    set_writer(file, host="another machine", lock="unseen", heartbeat_utc="2020-01-01T00:00:00.000Z")
    assert history.mark_interrupted() == 1  # as another machine would do after this one was suspended
    history.flush_answer(answer.uuid, "A")
    assert history.message(answer.uuid, ME).state == "streaming"
    assert history.mark_interrupted() == 0
    assert history.finish_answer(answer.uuid, text="All", state="done").state == "done"
    history.close()


def test_a_process_killed_while_writing_leaves_an_intact_file(start: Callable[[], Process], file: Path) -> None:
    acknowledged: list[str] = []
    for round_ in range(3):
        process = start()
        process.ask("open", file)
        process.tell("write", file, 10_000, "and tell")
        acknowledged += [process.reply() for _ in range(5 + 5 * round_)]
        process.kill()
        history = History(file)
        for uuid in acknowledged:
            assert history.message(uuid, ME).state == "done"
        states = {m.state for c in history.conversations(ME) for m in history.messages(c.uuid, ME)}
        assert states <= {"done", "interrupted"}
        history.close()
        with sqlite3.connect(file) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert db.execute("pragma foreign_key_check").fetchall() == []
        db.close()
