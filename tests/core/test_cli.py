"""The command line: output streams, exit codes, Ctrl-C, kill, pipes and bad input."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from impchat import images, paths, settings, texts
from impchat.bundle import MANIFEST, Bundle
from impchat.cli.main import choose_language, main
from impchat.cli.terminal import printable
from impchat.history.store import History
from impchat.messages import Message
from tests.core.conftest import Draw
from tests.core.hands import (
    ROOT,
    command,
    copy_model,
    endless_model,
    environment,
    run,
    run_without,
    terminal,
    wait_for_answer_on_disk,
)
from tests.core.scripted import SECONDS

ME = settings.OWNER
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def endless(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return endless_model(demo.path, tmp_path_factory.mktemp("models") / "endless")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def circle(tmp_path: Path, draw: Draw) -> Path:
    path = tmp_path / "circle.png"
    path.write_bytes(draw("red").data)
    return path


@pytest.fixture
def stored(data: Path, draw: Draw) -> str:
    """Add a conversation to the history without running a model; return its uuid."""
    with closing(History(paths.history_file(paths.ensure_data_dir(data)))) as history:
        row = history.create_conversation(ME)
        image = history.add_image(images.prepare(draw("red").data), ME)
        question = history.add_question(row.uuid, ME, parent=None, text="What is it?", images=[image.sha256])
        answer = history.start_answer(row.uuid, ME, parent=question.uuid, model="imp-test")
        history.finish_answer(answer.uuid, text="A red circle.\x1b[2J 圆形", state="stopped", finish_reason="stopped")
    return row.uuid


def impchat(data: Path, *words: object) -> int:
    return main(["--data", str(data), "--language", "en", *map(str, words)])


def one_line(text: str) -> str:
    """Return the sentence on stderr after checking that it is one line and no traceback."""
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def messages(data: Path) -> list[Message]:
    """The messages of the newest conversation, read by a History of its own."""
    with closing(History(paths.history_file(data))) as history:
        return history.branch(history.conversations(ME)[0].uuid, ME)


# impchat ask


def test_ask_prints_only_the_answer_on_stdout(data: Path, circle: Path, capsys: Capture) -> None:
    assert impchat(data, "ask", circle, "What colour is the circle?") == 0
    out, err = capsys.readouterr()
    question, answer = messages(data)

    assert "red" in out.lower()
    assert out == printable(answer.text) + "\n"
    assert len(question.images) == 1
    assert "tokens/s" in err


def test_ask_answers_in_chinese_and_speaks_it(data: Path, circle: Path, capsys: Capture) -> None:
    assert main(["ask", str(circle), "圆形是什么颜色？", "--data", str(data), "--language", "zh"]) == 0
    out, err = capsys.readouterr()
    assert "红" in out
    assert "首个词元" in err


def test_the_demo_model_is_announced_once_in_a_terminal_and_never_to_a_script(data: Path) -> None:
    seen = []
    for _ in range(2):
        with terminal(data, "ask", "Hello!") as screen:
            screen.expect("tokens/s")
            assert screen.leave() == 0
        seen.append("demo model" in screen.seen)
    assert seen == [True, False]
    with terminal(data, "chat") as screen:
        screen.expect("You> ")
        screen.type("/quit\n")
        assert screen.leave() == 0
    assert "demo model" in screen.seen
    assert "demo model" not in run(data.with_name("other"), "ask", "Hello!").stderr


def test_ask_without_a_question_says_how(data: Path, circle: Path, capsys: Capture) -> None:
    assert impchat(data, "ask", circle) == 2
    assert "no question" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("question", ["", " \n"])
def test_a_picture_without_words_is_refused(data: Path, circle: Path, question: str, capsys: Capture) -> None:
    assert impchat(data, "ask", circle, question) == 2
    assert "The question is empty" in one_line(capsys.readouterr().err)
    assert not data.exists(), "nothing is stored"


def test_options_of_sampling_reach_the_model(data: Path, capsys: Capture) -> None:
    assert impchat(data, "ask", "Hello!", "--max-tokens", "3", "--seed", "1") == 0
    stats = messages(data)[1].stats
    assert stats
    assert stats.generated_tokens == 3
    assert "greatest length" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["device", "pipe", "file"])
def test_a_picture_is_read_no_further_than_the_largest_one(
    how: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    path, size = Path("/dev/zero"), "65"
    if how == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
        filling = f"cat /dev/zero > {path}"
        writer = subprocess.Popen(["sh", "-c", filling], stderr=subprocess.DEVNULL)
    elif how == "file":
        path, size = tmp_path / "large.png", "1024"
        path.touch()
        os.truncate(path, 2**30)
    assert impchat(data, "ask", path, "What is it?") == 2
    assert f"The picture file has {size} MB and at most 64 MB" in one_line(capsys.readouterr().err)
    if how == "pipe":
        assert writer.wait(SECONDS) != 0, "it is not read to its end"


def test_a_folder_or_a_pipe_is_no_question_and_no_picture(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert impchat(data, "ask", tmp_path, "What is it?") == 2
    assert "is a folder: add --table FILE.csv" in one_line(capsys.readouterr().err)
    assert impchat(data, "ask", "/dev/zero") == 2
    assert "no question follows it" in one_line(capsys.readouterr().err)


# impchat chat


def test_lines_piped_in_are_questions_and_commands(data: Path, circle: Path) -> None:
    done = run(data, "chat", input=f"/image {circle}\nWhat colour is the circle?\n/nonsense\nIs there a square?\n")
    history = messages(data)

    assert done.returncode == 2, "one of the lines failed"
    assert "There is no command /nonsense" in done.stderr
    assert [m.text for m in history if m.role == "user"] == ["What colour is the circle?", "Is there a square?"]
    assert done.stdout == "".join(printable(m.text) + "\n" for m in history if m.role == "assistant")
    assert f"--conversation {history[0].conversation[:8]}" in done.stderr


def test_a_conversation_is_continued_by_the_beginning_of_its_uuid(data: Path) -> None:
    assert run(data, "chat", input="Hello!\n").returncode == 0
    first = messages(data)
    done = run(data, "chat", "--conversation", first[0].conversation[:8], input="Hello again!\n/retry\n")
    assert done.returncode == 0
    assert [m.text for m in messages(data) if m.role == "user"] == ["Hello!", "Hello again!"]
    with closing(History(paths.history_file(data))) as history:
        assert len(history.siblings(messages(data)[-1].uuid, ME)) == 2


def test_ctrl_c_stops_and_keeps_the_answer_and_exits_at_the_prompt(data: Path, endless: Path) -> None:
    with terminal(data, "chat", "--model", endless) as screen:
        screen.expect("You> ")
        screen.type("Tell me a story\n")
        answer = wait_for_answer_on_disk(data)
        screen.type("\x03")
        screen.expect("Stopped")
        screen.expect("You> ", times=2)
        assert screen.interrupt() == 0
        assert "Traceback" not in screen.seen

    row = messages(data)[-1]
    assert (row.uuid, row.state) == (answer, "stopped")
    assert row.text.strip()


def test_an_empty_line_is_no_question_but_a_picture_alone_is(data: Path, circle: Path) -> None:
    with terminal(data, "chat") as screen:
        screen.expect("You> ")
        screen.type(" \n")
        screen.expect("There is nothing to answer")
        screen.expect("You> ", times=2)
        assert no_messages(data)
        screen.type(f"/image {circle}\n\n")
        screen.expect("tokens/s")
        screen.type("/quit\n")
        assert screen.leave() == 0
    question = messages(data)[0]
    assert (question.text, len(question.images)) == ("", 1)


def test_empty_lines_of_a_file_are_skipped(data: Path) -> None:
    assert run(data, "chat", input="\n \nHello!\n\n").returncode == 0
    assert [m.text for m in messages(data) if m.role == "user"] == ["Hello!"]


def test_a_picture_is_attached_by_command_in_the_terminal(data: Path, circle: Path) -> None:
    quoted = circle.with_name("my circle.png")
    circle.rename(quoted)
    with terminal(data, "chat") as screen:
        screen.expect("You> ")
        screen.type(f"/image '{quoted}'\n")
        screen.expect("320 x 240")
        screen.type("What colour is the circle?\n")
        screen.expect("tokens/s")
        screen.type("/quit\n")
        assert screen.leave() == 0
    assert len(messages(data)[0].images) == 1


def test_a_killed_process_leaves_the_question_and_the_answer_so_far(data: Path, endless: Path) -> None:
    with subprocess.Popen(
        command("ask", "Tell me a story", "--model", endless),
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        answer = wait_for_answer_on_disk(data)
        process.send_signal(signal.SIGKILL)

    question, row = messages(data)
    assert question.text == "Tell me a story"
    assert (row.uuid, row.state) == (answer, "interrupted")
    assert row.text
    done = run(data, "history", "show", question.conversation)
    assert "interrupted" in done.stdout


def test_a_closed_pipe_is_no_error(data: Path, stored: str, endless: Path) -> None:
    for words in (["history", "list"], ["models", "list"], ["ask", "Tell me a story", "--model", str(endless)]):
        with subprocess.Popen(
            command(*words), env=environment(data), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout and process.stderr
            process.stdout.close()
            errors = process.stderr.read()
        assert "Traceback" not in errors and "Broken" not in errors
        assert process.returncode == 141
    assert messages(data)[-1].state == "stopped"


def shell(data: Path, words: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """Run `impchat` with its streams redirected by a shell."""
    script = f'"{sys.executable}" -m impchat.cli.main --language en {words} {redirected}'
    return subprocess.run(
        ["sh", "-c", script], env=environment(data), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("words", "redirected"),
    [
        ("ask Hello!", ">/dev/full"),
        ("ask Hello!", ">&-"),
        ("history list", ">/dev/full"),
        ("models list", ">/dev/full"),
        ("models list", ">&-"),
        ("doctor", ">/dev/full"),
        ("--help", ">/dev/full"),
        ("serve token list", ">&-"),
    ],
)
def test_unwritable_output_is_reported_in_one_sentence(data: Path, stored: str, words: str, redirected: str) -> None:
    done = shell(data, words, redirected)
    assert (done.returncode, done.stdout) == (2, "")
    assert "The output cannot be written" in one_line(done.stderr)


def test_a_closed_input_is_reported_in_one_sentence(data: Path, stored: str) -> None:
    done = shell(data, "chat", "<&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert "The input cannot be read" in one_line(done.stderr)
    done = shell(data, f"history delete {stored}", "<&-")
    assert done.returncode == 2
    assert "--yes" in one_line(done.stderr)


def test_an_answer_is_printed_when_stderr_cannot_be_written(data: Path) -> None:
    done = shell(data, "ask Hello!", "2>/dev/full")
    assert (done.returncode, done.stdout) == (0, printable(messages(data)[1].text) + "\n")


def test_the_history_is_whole_after_a_command_without_any_streams(data: Path) -> None:
    assert shell(data, "ask Hello!", "<&- >&- 2>&-").returncode == 2
    assert messages(data)[0].text == "Hello!"
    assert data.joinpath("history.db").read_bytes()[:15] == b"SQLite format 3"


def test_lines_of_a_file_from_windows_are_questions_and_commands(data: Path) -> None:
    done = run(data, "chat", input="\ufeff/new\r\nHello!\r\n\ufeff/quit\r\nNot any more\r\n")
    assert done.returncode == 0, done.stderr
    assert [m.text for m in messages(data) if m.role == "user"] == ["Hello!"]


def test_ctrl_c_ends_ask_without_a_traceback_and_keeps_the_answer(data: Path, endless: Path) -> None:
    with subprocess.Popen(
        command("ask", "Tell me a story", "--model", endless),
        env=environment(data),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_answer_on_disk(data)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=6 * SECONDS)[1]
    assert process.returncode == 130
    assert "Traceback" not in errors and "Stopped" in errors
    assert messages(data)[1].state == "stopped"


# impchat history


def test_list_show_and_search(data: Path, stored: str, capsys: Capture) -> None:
    assert impchat(data, "history", "list") == 0
    assert re.match(rf"{stored[:8]}  \d{{4}}-\d\d-\d\d \d\d:\d\d  What is it\?", capsys.readouterr().out)
    assert impchat(data, "history", "show", stored[:6]) == 0
    shown = capsys.readouterr().out
    assert "What is it?" in shown and "A red circle." in shown and "320 x 240" in shown and "stopped" in shown
    assert impchat(data, "history", "search", "red", "circle") == 0
    assert stored[:8] in capsys.readouterr().out
    assert impchat(data, "history", "search", "圆") == 0
    assert stored[:8] in capsys.readouterr().out
    assert impchat(data, "history", "search", "nowhere") == 0
    assert capsys.readouterr() == ("", "Nothing found.\n")


def test_chats_with_equal_titles_can_be_told_apart(data: Path, stored: str, capsys: Capture) -> None:
    with closing(History(paths.history_file(data))) as history:
        row = history.create_conversation(ME)
        history.add_question(row.uuid, ME, parent=None, text="What is it?")
        untitled = history.create_conversation(ME)
        question = history.add_question(untitled.uuid, ME, parent=None, text="")
        history.start_answer(untitled.uuid, ME, parent=question.uuid, model="m")
    assert impchat(data, "history", "list") == 0
    lines = {line[:8]: line for line in capsys.readouterr().out.splitlines()}
    assert lines[stored[:8]].endswith("What is it?  (messages: 2, pictures: 1)")
    assert lines[row.uuid[:8]].endswith("What is it?  (messages: 1, pictures: 0)")
    assert re.search(r"  Picture, \d+ \w+  \(messages: 2", lines[untitled.uuid[:8]])


def test_a_search_names_chats_without_a_title(data: Path, capsys: Capture) -> None:
    with closing(History(paths.history_file(paths.ensure_data_dir(data)))) as history:
        row = history.create_conversation(ME)
        question = history.add_question(row.uuid, ME, parent=None, text="")
        answer = history.start_answer(row.uuid, ME, parent=question.uuid, model="m")
        history.flush_answer(answer.uuid, "A red circle.")
    assert impchat(data, "history", "search", "circle") == 0
    assert re.match(rf"{row.uuid[:8]}  [\d-]{{10}} \d\d:\d\d  Picture, \d+ \w+\n    A red", capsys.readouterr().out)


def test_control_characters_in_an_answer_do_not_reach_the_terminal(data: Path, stored: str, capsys: Capture) -> None:
    assert impchat(data, "history", "show", stored) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_export_and_import_bring_a_conversation_to_another_folder(data: Path, stored: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.zip", tmp_path / "second.zip"
    other = tmp_path / "other"
    assert impchat(data, "history", "export", stored, "-o", first) == 0
    assert impchat(other, "history", "import", first) == 0
    assert impchat(other, "history", "export", stored, "-o", second) == 0
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as exported:
        assert "conversation.json" in exported.namelist()
        exported.extractall(tmp_path / "unpacked")
    # in a subfolder, with folder entries
    packed_again = shutil.make_archive(str(tmp_path / "again"), "zip", tmp_path, "unpacked")
    assert impchat(tmp_path / "third", "history", "import", packed_again) == 0
    assert impchat(tmp_path / "third", "history", "export", stored, "-o", tmp_path / "third.zip") == 0
    assert first.read_bytes() == (tmp_path / "third.zip").read_bytes()


def test_markdown_is_exported_with_its_pictures(data: Path, stored: str, tmp_path: Path) -> None:
    out = tmp_path / "out" / "talk.md"
    assert impchat(data, "history", "export", stored, "--markdown", "-o", out) == 0
    links = re.findall(r"!\[.*?\]\((.+?)\)", out.read_text())
    assert len(links) == 1
    assert (out.parent / links[0]).is_file()


def test_one_html_file_is_exported_with_its_pictures(data: Path, stored: str, tmp_path: Path) -> None:
    out = tmp_path / "talk.html"
    assert impchat(data, "history", "export", stored, "--html", "-o", out) == 0
    assert "data:image/" in out.read_text() and "<!doctype html>" in out.read_text()


def test_conversations_of_chatgpt_are_imported(data: Path, tmp_path: Path, capsys: Capture) -> None:
    node = {"message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["A zebra?"]}}}
    file = tmp_path / "conversations.json"
    file.write_text(json.dumps([{"id": str(n), "title": f"Talk {n}", "mapping": {"a": node}} for n in range(2)]))
    assert impchat(data, "history", "import", file) == 0
    out = capsys.readouterr().out
    assert "Talk 0" in out and "Talk 1" in out
    assert impchat(data, "history", "search", "zebra") == 0
    assert capsys.readouterr().out.count("A zebra?") == 2


def test_an_export_overwrites_nothing(data: Path, stored: str, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "mine.zip"
    target.write_text("mine")
    assert impchat(data, "history", "export", stored, "-o", target) == 2
    assert "exists already" in one_line(capsys.readouterr().err)
    assert target.read_text() == "mine"


def test_an_export_that_does_not_fit_leaves_no_partial_file(data: Path, tmp_path: Path) -> None:
    noise = io.BytesIO()
    Image.frombytes("RGB", (600, 600), os.urandom(600 * 600 * 3)).save(noise, "PNG")
    with closing(History(paths.history_file(paths.ensure_data_dir(data)))) as history:
        image = history.add_image(images.prepare(noise.getvalue()), ME)
        row = history.create_conversation(ME)
        history.add_question(row.uuid, ME, parent=None, text="What is it?", images=[image.sha256])
    target = tmp_path / "mine.zip"
    limit = ["sh", "-c", 'ulimit -f 200; exec "$@"', "sh"]  # in blocks of 512 bytes
    done = subprocess.run(
        [*limit, *command("history", "export", row.uuid, "-o", target)],
        env=environment(data),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{target} cannot be written" in one_line(done.stderr)
    assert not target.exists()


def test_an_export_into_a_file_as_folder_is_refused(data: Path, stored: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    assert impchat(data, "history", "export", stored, "-o", tmp_path / "file" / "mine.zip") == 2
    assert f"{tmp_path / 'file'} cannot be written" in one_line(capsys.readouterr().err)


def test_a_deleted_conversation_can_be_restored(data: Path, stored: str, capsys: Capture) -> None:
    assert impchat(data, "history", "delete", stored[:8], "--yes") == 0
    assert f"restore {stored[:8]}" in capsys.readouterr().err
    assert impchat(data, "history", "list") == 0
    assert capsys.readouterr().out == ""
    assert impchat(data, "history", "list", "--deleted") == 0
    assert stored[:8] in capsys.readouterr().out
    assert impchat(data, "history", "restore", stored[:8]) == 0
    assert stored[:8] in capsys.readouterr().out
    assert impchat(data, "history", "list") == 0
    assert stored[:8] in capsys.readouterr().out


def test_restoring_a_conversation_that_was_not_deleted_says_so(data: Path, stored: str, capsys: Capture) -> None:
    assert impchat(data, "history", "restore", stored[:8]) == 0, "the conversation is not deleted, which is the goal"
    out, err = capsys.readouterr()
    assert "is not deleted" in one_line(err)
    assert stored[:8] in out


def test_the_bin_is_emptied_after_confirmation(data: Path, stored: str, capsys: Capture) -> None:
    assert impchat(data, "history", "delete", stored, "--yes") == 0
    done = run(data, "history", "empty-bin")
    assert done.returncode == 2 and "--yes" in one_line(done.stderr)
    assert impchat(data, "history", "empty-bin", "--yes") == 0
    assert "1" in capsys.readouterr().err
    assert impchat(data, "history", "restore", stored) == 2
    assert list((data / "images").rglob("*.*")) == []


def test_nothing_is_deleted_without_confirmation(data: Path, stored: str) -> None:
    done = run(data, "history", "delete", stored)
    assert done.returncode == 2
    assert "--yes" in one_line(done.stderr)
    for no in ("n\n", "\x04"):  # Ctrl-D
        with terminal(data, "history", "delete", stored) as screen:
            screen.expect("[y/N]")
            screen.type(no)
            assert screen.leave() == 1
        assert "Traceback" not in screen.seen
    with terminal(data, "history", "delete", stored) as screen:
        screen.expect("[y/N]")
        screen.type("y\n")
        assert screen.leave() == 0
    with closing(History(paths.history_file(data))) as history:
        assert history.conversation(stored, ME).deleted_utc


def test_a_uuid_that_fits_none_or_several_is_reported(data: Path, stored: str, capsys: Capture) -> None:
    with closing(History(paths.history_file(data))) as history:
        while True:
            other = history.create_conversation(ME).uuid
            if other[0] == stored[0]:
                break
    assert impchat(data, "history", "show", stored[0]) == 2
    assert "conversations begin with" in one_line(capsys.readouterr().err)
    assert impchat(data, "history", "show", "zzz") == 2
    assert "no such conversation" in one_line(capsys.readouterr().err)


# impchat doctor, convert, web


def test_doctor_reports_what_would_run(data: Path, capsys: Capture) -> None:
    assert impchat(data, "doctor") == 0
    out = capsys.readouterr().out
    for part in ("Python 3", "llama-cpp-python", "onnxruntime", str(data), settings.DEMO_MODEL, "Free disk", "Engine"):
        assert part in out
    assert "✗" not in out


def test_doctor_checks_every_package_that_the_core_needs(data: Path, capsys: Capture) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert impchat(data, "doctor") == 0
    out = capsys.readouterr().out
    for requirement in project["dependencies"]:
        name = re.match(r"[a-z0-9-]+", requirement)
        assert name and re.search(rf"^✓ {name[0]} \d", out, re.MULTILINE), requirement


def test_doctor_reports_what_prevents_running(data: Path, demo: Bundle, tmp_path: Path, capsys: Capture) -> None:
    model = copy_model(demo.path, tmp_path / "model")
    vision = model / demo.files["vision"].name
    vision.write_bytes(vision.read_bytes()[:-1] + b"?")
    assert impchat(data, "doctor", "--model", model) == 1
    assert f"✗ The file {vision.name}" in capsys.readouterr().out

    (tmp_path / "file").touch()
    assert impchat(tmp_path / "file" / "data", "doctor") == 1
    assert "✗ The folder" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["web"], ["--data", "x", "web"]])
def test_a_command_of_a_missing_extra_names_the_extra(words: list[str], data: Path) -> None:
    done = run_without(["gradio"], data, *words)
    assert done.returncode == 2
    assert texts.install("web") in one_line(done.stderr)


def test_doctor_runs_without_optional_packages(data: Path) -> None:
    done = run_without(["rich", "numpy", "onnxruntime", "llama_cpp"], data, "doctor")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for package in ("rich", "numpy", "onnxruntime", "llama-cpp-python"):
        assert re.search(rf"^✗ {package} .*install it again", done.stdout, re.MULTILINE)


# Bad input: each case ends with one sentence and exit code 2, and leaves the history intact


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--foo"], "There is no option --foo"),
        (["chat", "--foo"], "There is no option --foo"),
        (["history", "list", "--foo", "x"], "There is no option --foo"),
        (["frobnicate"], "There is no command frobnicate"),
        (["history"], "ACTION is missing"),
        (["history", "frobnicate"], "There is no command frobnicate"),
        (["history", "show"], "UUID is missing"),
        (["chat", "--image"], "--image needs a value"),
        (["ask"], "is missing"),
        (["ask", "Hi", "--temperature", "hot"], "--temperature takes a number, not hot"),
        (["ask", "Hi", "--temperature", "9"], "temperature is 9.0, outside 0.0 to 2.0"),
        (["ask", "Hi", "--top-p", "nan"], "top_p is nan"),
        (["ask", "Hi", "--max-tokens", "0"], "max_tokens is 0, outside 1"),
        (["ask", "Hi", "--max-tokens", "1.5"], "--max-tokens takes a number, not 1.5"),
        (["history", "list", "--count", "-1"], "--count takes a number"),
        (["chat", "--language", "fr"], "--language fr is unknown: choose one of en, zh"),
        (["ask", "nowhere.png", "Hi"], "nowhere.png cannot be read"),
        (["ask", ""], "The question is empty"),
        (["ask", "why? " * 4000], "The question has 20000 characters"),
        (["chat", "--conversation", "zzz"], "no such conversation"),
        (["convert", "nowhere", "to"], "There is no folder nowhere"),
        (["history", "import", "nowhere.zip"], "nowhere.zip cannot be read"),
        (["ask", "Hi", "--model", "no-such-model"], "There is no model no-such-model"),
        (["ask", "Hi", "--model", "no/such/model"], "There is no model at no/such/model"),
    ],
)
def test_bad_arguments_end_in_one_sentence(words: list[str], part: str, data: Path, capsys: Capture) -> None:
    assert impchat(data, *words) == 2
    out, err = capsys.readouterr()
    assert part in err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert out == ""
    assert no_messages(data)


def no_messages(data: Path) -> bool:
    with closing(History(paths.history_file(data))) as history:
        return not any(history.messages(c.uuid, ME) for c in history.conversations(ME))


def test_bytes_that_are_not_utf_8_cause_no_crash(data: Path) -> None:
    done = subprocess.run(
        command("chat"),
        input=b"/image a\0b\n/image ~nobody-here/x\n\xff\xfe\n",
        env=environment(data),
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert messages(data)[0].text == "\ufffd\ufffd"


@pytest.mark.parametrize("words", [["list", "--folder"], ["list", "--tag"], ["search"]])
def test_a_name_with_invalid_characters_is_not_found(
    data: Path, stored: str, words: list[str], capsys: Capture
) -> None:
    assert impchat(data, "history", *words, "\udcff") == 0
    assert capsys.readouterr().out == ""


def test_a_text_file_named_png_is_no_picture(data: Path, tmp_path: Path, capsys: Capture) -> None:
    fake = tmp_path / "fake.png"
    fake.write_text("only text")
    assert impchat(data, "ask", fake, "What is it?") == 2
    assert "not a picture" in capsys.readouterr().err.strip().splitlines()[-1]
    assert no_messages(data)


def test_an_unwritable_data_folder(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "file").touch()
    for words in (["ask", "Hello!"], ["history", "list"], ["chat"]):
        assert impchat(tmp_path / "file" / "data", *words) == 2
        assert "cannot be written" in one_line(capsys.readouterr().err)


def test_a_broken_manifest(data: Path, demo: Bundle, tmp_path: Path, capsys: Capture) -> None:
    model = copy_model(demo.path, tmp_path / "model")
    (model / MANIFEST).write_text("{")
    assert impchat(data, "ask", "Hello!", "--model", model) == 2
    assert "manifest" in one_line(capsys.readouterr().err)


def test_a_checksum_that_does_not_fit(data: Path, demo: Bundle, tmp_path: Path, capsys: Capture) -> None:
    model = copy_model(demo.path, tmp_path / "model")
    language = model / demo.files["language"].name
    language.write_bytes(language.read_bytes()[:-1] + b"?")
    assert impchat(data, "ask", "Hello!", "--model", model) == 2
    out, err = capsys.readouterr()
    assert f"The file {language.name}" in err.strip().splitlines()[-1]
    assert out == ""
    assert [(m.text, m.state) for m in messages(data)] == [("Hello!", "done"), ("", "failed")]


def test_a_disk_that_fills_during_an_answer(data: Path, endless: Path) -> None:
    with subprocess.Popen(
        command("ask", "Tell me a story", "--model", endless),
        env=environment(data),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        answer = wait_for_answer_on_disk(data)
        size = data.joinpath("history.db-wal").stat().st_size
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))  # no file can grow any more
        process.send_signal(signal.SIGINT)  # end the answer early
        out, err = process.communicate(timeout=6 * SECONDS)

    assert process.returncode == 2
    assert "There is no room" in err
    assert "Traceback" not in err
    question, row = messages(data)
    assert question.text == "Tell me a story"
    assert (row.uuid, row.state) == (answer, "interrupted")
    assert row.text and out.startswith(printable(row.text)), "the saved part is kept, and all of it was printed"


# Language


def test_sentences_follow_the_option_then_the_locale() -> None:
    assert choose_language([], {"LANG": "zh_CN.UTF-8"}) == "zh"
    assert choose_language([], {"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}) == "en"
    assert choose_language(["chat", "--language", "zh"], {}) == "zh"
    assert choose_language(["--language=en"], {"LANG": "zh_CN.UTF-8"}) == "en"
    assert choose_language(["convert", "a", "b", "--language", "q8_0"], {}) == "en"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    "words", [[], ["--help"], ["ask", "--help"], ["chat", "-h"], ["history", "--help"], ["history", "export", "--help"]]
)
def test_help_is_in_one_language(words: list[str], language: str, capsys: Capture) -> None:
    assert main(["--language", language, *words]) == 0
    out = capsys.readouterr().out
    assert ("usage" in out) == (language == "en")
    assert ("选项" in out) == (language == "zh")


def test_help_shows_defaults_and_what_may_be_left_out(capsys: Capture) -> None:
    def shown(*words: str) -> str:
        assert main(["--language", "en", *words, "--help"]) == 0
        return " ".join(capsys.readouterr().out.split())

    serve = shown("serve")
    for default in (settings.SERVE_PORT, settings.SLOTS, settings.QUEUE_REQUESTS, settings.CLUSTER_REPLICAS[0]):
        assert f"(default: {default})" in serve
    assert "[ACTION] ... answer" in serve and "SUBCOMMAND ... make" in shown("serve", "token")
    assert f"(default: {settings.LIST_COUNT})" in shown("history", "list")
    assert f"(default: {settings.DEFAULT_MODEL})" in shown("models", "pull")
    assert "(default: the model's own)" in shown("ask") and "(default: random)" in shown("chat")
