"""One question about many pictures: in the core, and as `impchat ask --table`."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from impchat import images, table
from impchat.batch import Batch, Item
from impchat.bundle import Bundle
from impchat.cli.main import main
from impchat.cli.table import find, target
from impchat.engines import EngineInfo
from impchat.engines.local.engine import LocalEngine
from impchat.errors import ChatError, SettingsError
from impchat.messages import Prompt, Sampling
from impchat.table import Row
from tests.core.conftest import Draw
from tests.core.hands import command, endless_model, environment, terminal
from tests.core.loopback import Loopback, serving
from tests.core.scripted import SECONDS, Script

QUESTION = "What colour is the circle?"
Capture = pytest.CaptureFixture[str]


@dataclass
class Engine:
    """Passes each question to the test, which answers it."""

    started: queue.SimpleQueue[Script] = field(default_factory=queue.SimpleQueue)
    info = EngineInfo("scripted", "imp-test", 2048, True, 196, Sampling())

    def prefill(self, prompt: Prompt) -> Script:
        raise AssertionError("nothing is read ahead")

    def start(self, prompt: Prompt, sampling: Sampling) -> Script:
        script = Script(prompt, sampling)
        self.started.put(script)
        return script

    def close(self) -> None: ...

    def next(self) -> Script:
        return self.started.get(timeout=SECONDS)


@pytest.fixture
def folder(tmp_path: Path, draw: Draw) -> Path:
    """photos/: red 10.png, red 9.png, notes.txt, blue (no suffix), .hidden.png, more/green.png, more/bad.jpg"""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for name, colour in {"red 10.png": "red", "red 9.png": "red", "blue": "blue", "more/green.png": "green"}.items():
        (photos / name).write_bytes(draw(colour).data)
    (photos / ".hidden.png").write_bytes(draw("red").data)
    (photos / "notes.txt").write_text("no picture")
    (photos / "more" / "bad.jpg").write_bytes(b"broken")
    return photos


def items(draw: Draw, *colours: str) -> list[Item]:
    return [Item(colour, lambda colour=colour: draw(colour).data) for colour in colours]  # type: ignore[misc]


def test_each_picture_gets_its_own_answer_and_a_broken_one_a_sentence(demo: Bundle, draw: Draw) -> None:
    engine = LocalEngine(demo, slots=2)
    batch = Batch(engine, QUESTION, [*items(draw, "red", "blue"), Item("bad", lambda: b"no picture")], language="zh")
    rows = {row.file: row for row in batch.rows()}
    engine.close()
    assert "red" in rows["red"].answer and "blue" in rows["blue"].answer
    assert rows["bad"].failed and "PNG" in rows["bad"].answer and "图片" in rows["bad"].answer
    assert max(images.decode(rows["red"].thumbnail).size) == 128
    assert (batch.done, batch.total) == (3, 3)


def test_as_many_questions_run_at_once_as_wanted_and_each_is_alone_in_its_prompt(draw: Draw) -> None:
    engine = Engine()
    batch = Batch(engine, QUESTION, items(draw, "red", "blue", "green"), system="Be brief.", at_once=2)
    rows: list[Row] = []
    reader = threading.Thread(target=lambda: rows.extend(batch.rows()))
    reader.start()
    first, second = engine.next(), engine.next()
    assert engine.started.empty(), "the third waits"
    second.finish("Blue.")
    third = engine.next()
    assert third.prompt.key == second.prompt.key != first.prompt.key, "a batch takes no more slots than it needs"
    third.finish(" Green.\n")
    first.finish("Red", ".")
    reader.join(SECONDS)
    assert sorted(row.answer for row in rows) == ["Blue.", "Green.", "Red."]
    assert [turn.text for turn in third.prompt.turns] == [QUESTION]
    assert third.prompt.system == "Be brief."


def test_stop_keeps_the_rows_so_far_and_drops_the_one_in_progress(draw: Draw) -> None:
    engine = Engine()
    batch = Batch(engine, QUESTION, items(draw, "red", "blue", "green"), at_once=1)
    rows = batch.rows()
    threading.Thread(target=lambda: engine.next().finish("Red.")).start()
    assert next(rows).answer == "Red."
    running = engine.next()
    running.say("Blu")
    batch.stop()
    assert list(rows) == []
    assert running.stopped and engine.started.empty()


def test_leaving_the_rows_stops_the_answers(draw: Draw) -> None:
    engine = Engine()
    rows = Batch(engine, QUESTION, items(draw, "red", "blue"), at_once=2).rows()
    scripts: list[Script] = []

    def answer_one() -> None:
        scripts.extend((engine.next(), engine.next()))
        scripts[0].finish("Red.")

    threading.Thread(target=answer_one).start()
    next(rows)
    rows.close()
    assert scripts[1].stopped


def test_a_question_without_words_is_refused(draw: Draw) -> None:
    for question in (" ", "x" * 20_000):
        with pytest.raises(ChatError):
            Batch(Engine(), question, items(draw, "red"))


# impchat ask --table


def test_pictures_of_a_folder_are_found_in_natural_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    found = find(["photos", "photos/blue", "./photos"], recursive=False)
    assert found.pictures == ("photos/blue", "photos/red 9.png", "photos/red 10.png")
    assert found.skipped == 1, "notes.txt, but not what is hidden"
    found = find(["photos"], recursive=True)
    assert found.pictures[1:3] == ("photos/more/bad.jpg", "photos/more/green.png"), "a damaged picture is not lost"
    os.mkfifo("photos/more/pipe.png")
    os.symlink("gone.jpg", "photos/more/link.jpg")
    names = [Path(picture).name for picture in find(["photos/more"], recursive=False).pictures]
    assert names == ["bad.jpg", "green.png", "link.jpg"], "a broken link is not lost; nobody writes to the pipe"
    with pytest.raises(SettingsError):
        find(["photos/missing.png"], recursive=False)


def test_the_two_files_of_a_table_have_one_name(tmp_path: Path) -> None:
    for typed in ("cats", "cats.csv", "cats.html"):
        assert target(str(tmp_path / typed)) == tmp_path / "cats.csv"
    assert target("photos.v2") == Path("photos.v2.csv")


def test_a_folder_becomes_a_table_and_the_next_run_asks_only_what_is_missing(
    tmp_path: Path, folder: Path, draw: Draw, capsys: Capture
) -> None:
    words = ["ask", "--data", str(tmp_path / "data"), "--language", "en", "--table", str(tmp_path / "t.csv"), "-r"]
    assert main([*words, str(folder), QUESTION]) == 2, "a picture failed"
    out, err = capsys.readouterr()
    assert out.count("\n") == 4 and "red 9.png: The circle is red." in out
    assert "bad.jpg: This file is not a picture" in err
    assert "Answers: 4 of 5, failed: 1, other files skipped: 1" in err
    rows = table.from_csv((tmp_path / "t.csv").read_bytes())
    assert [Path(row.file).name for row in rows] == ["blue", "bad.jpg", "green.png", "red 9.png", "red 10.png"]
    assert (tmp_path / "t.html").read_text().count("<img ") == 4
    (folder / "more" / "bad.jpg").write_bytes(draw("yellow").data)

    assert main([*words, str(folder), QUESTION]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("[1/1]") and "yellow" in out
    assert "skipped: 4" in err
    assert "yellow" in (tmp_path / "t.csv").read_text()
    assert (tmp_path / "t.html").read_text().count("<img ") == 5


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, demo: Bundle, folder: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "t.csv"
    assert main(["ask", "--data", str(data), "--table", str(file), str(folder / "blue"), QUESTION]) == 0
    before = table.from_csv(file.read_bytes())
    endless = endless_model(demo.path, tmp_path / "endless")
    with terminal(data, "ask", "--model", endless, "--table", file, folder, QUESTION) as screen:
        screen.expect("Asking about 2 pictures")
        assert screen.interrupt() == 130
    assert "goes on from here" in screen.seen
    assert "Answers: 1 of 3" in screen.seen
    assert table.from_csv(file.read_bytes()) == before
    assert file.with_suffix(".html").exists()


def test_a_killed_run_loses_only_the_rows_in_progress(tmp_path: Path, demo: Bundle, folder: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "t.csv"
    endless = endless_model(demo.path, tmp_path / "endless")
    words = ("ask", "--model", endless, "--table", file, "--max-tokens", "8000", "-r", folder, QUESTION)
    with subprocess.Popen(command(*words), env=environment(data), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert any("bad.jpg" in line for line in process.stderr)  # the endless answers have no row yet
        process.send_signal(signal.SIGKILL)
    assert [os.path.basename(row.file) for row in table.from_csv(file.read_bytes())] == ["bad.jpg"]


@pytest.fixture
def far(demo: Bundle) -> Iterator[Loopback]:
    """A server with the demo model."""
    engine = LocalEngine(demo, threads=1)
    server = Loopback(engine)
    with serving(server):
        yield server
    engine.close()


def test_a_server_can_answer_a_table(tmp_path: Path, far: Loopback, folder: Path, capsys: Capture) -> None:
    words = ["ask", "--data", str(tmp_path / "data"), "--language", "en", "--table", str(tmp_path / "t"), str(folder)]
    assert main([*words, "--server", far.url, QUESTION]) == 0
    out, err = capsys.readouterr()
    assert "your questions and pictures are sent there" in err
    assert out.count("red.") == 2 and out.count("blue.") == 1
    assert (tmp_path / "t.csv").exists() and (tmp_path / "t.html").exists()


def test_what_is_missing_is_said_before_anything_is_written(tmp_path: Path, folder: Path, capsys: Capture) -> None:
    def said(*words: object) -> str:
        assert main(["ask", "--data", str(tmp_path / "data"), "--language", "en", *map(str, words)]) == 2
        return capsys.readouterr().err

    assert "No pictures were found (other files: 0)" in said("--table", tmp_path / "t.csv", QUESTION)
    assert "No pictures were found (other files: 1)" in said("--table", tmp_path / "t.csv", folder / "notes.txt", "?")
    assert "--table needs a value" in said("--table", "", folder, QUESTION)
    (tmp_path / "t.csv").write_text("my,own\n")
    assert "is not a table of answers" in said("--table", tmp_path / "t.csv", folder, QUESTION)
    assert (tmp_path / "t.csv").read_text() == "my,own\n"
    assert not (tmp_path / "t.html").exists()
