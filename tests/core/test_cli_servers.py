"""--server and `impchat servers`: which server answers, which key is sent, and to whom it is not sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from impchat import paths
from impchat.app import App
from impchat.bundle import Bundle
from impchat.cli.main import main
from impchat.engines.local.engine import LocalEngine
from impchat.peers import servers
from tests.core.conftest import Draw
from tests.core.hands import run
from tests.core.hostile import FINE, MODELS, Hostile, answer
from tests.core.loopback import Loopback, serving

QUESTION = "What colour is the circle?"


@pytest.fixture
def far(demo: Bundle) -> Iterator[Loopback]:
    """A server with the demo model."""
    engine = LocalEngine(demo, threads=1)
    server = Loopback(engine)
    with serving(server):
        yield server
    engine.close()


@pytest.fixture
def other() -> Iterator[Hostile]:
    """An unrelated server."""
    server = Hostile(FINE)
    with serving(server):
        yield server


@pytest.fixture
def picture(tmp_path: Path, draw: Draw) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(draw("red").data)
    return path


def keys(server: Hostile) -> set[str]:
    return {headers.get("authorization", "none") for _, headers, _ in server.asked}


def test_a_question_is_answered_by_the_server_and_stored_here(tmp_path: Path, far: Loopback, picture: Path) -> None:
    done = run(tmp_path / "data", "ask", "--server", far.url, picture, QUESTION)
    assert (done.returncode, "red" in done.stdout.lower()) == (0, True), done.stderr
    assert done.stderr.count("your questions and pictures are sent there") == 1, "also where the output is piped"
    asked = far.asked[-1]
    assert asked["messages"][-1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    with App.open(tmp_path / "data") as app:
        [row] = app.history.conversations("local")
        assert app.chat(row.uuid).branch()[-1].model == "imp-demo-196"


def test_a_conversation_reuses_the_servers_cache(tmp_path: Path, far: Loopback, picture: Path) -> None:
    words = ("chat", "--server", far.url, "--image", picture)
    done = run(tmp_path / "data", *words, input=f"{QUESTION}\nHow many shapes are there?\n")
    assert done.returncode == 0, done.stderr
    first, second = (line for line in done.stderr.splitlines() if line.startswith("Prompt"))
    assert "(0 cached)" not in first and "(0 cached)" not in second


def test_the_key_comes_from_the_environment_or_a_file(
    tmp_path: Path, other: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data", str(tmp_path), "--server", other.url, "Hello!"]
    monkeypatch.setenv("IMPCHAT_SERVER_KEY", "from-environment")
    assert main(["ask", *words]) == 0
    assert keys(other) == {"Bearer from-environment"}
    other.asked.clear()
    (tmp_path / "key").write_text("from-file\n")
    assert main(["ask", "--key-file", str(tmp_path / "key"), *words]) == 0
    assert keys(other) == {"Bearer from-file"}
    assert other.posts[-1]["model"] == "tiny"
    assert main(["ask", "--model", "large", *words]) == 0
    assert other.posts[-1]["model"] == "large"


def test_a_server_is_saved_used_by_its_name_and_removed(
    tmp_path: Path, other: Hostile, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path)]
    (tmp_path / "key").write_text("kept-key")
    added = ["servers", "add", other.url, "--name", "Kitchen", "--key-file", str(tmp_path / "key"), *data]
    assert main(added) == 0
    assert main(["servers", "list", *data]) == 0
    listed = capsys.readouterr()
    assert "Kitchen" in listed.out and other.url in listed.out and "with a key" in listed.out
    assert "kept-key" not in listed.out + listed.err
    monkeypatch.setenv("IMPCHAT_SERVER_KEY", "of-another-server")
    for word in ("Kitchen", other.url):  # a server can be named by its address too
        assert main(["ask", "--server", word, "Hello!", *data]) == 0
    assert keys(other) == {"Bearer kept-key"}
    assert "read on the way" not in capsys.readouterr().err
    assert main(["servers", "add", "http://192.0.2.1:8000", "--name", "Far", *data]) == 0
    assert "can be read on the way" in capsys.readouterr().err
    assert main(["servers", "rm", "Far", *data]) == 0
    assert main(["servers", "rm", "Kitchen", *data]) == 0
    assert servers.load(tmp_path) == []
    capsys.readouterr()
    assert main(["ask", "--server", "Kitchen", "Hello!", *data]) == 2
    assert "No server Kitchen is kept here" in capsys.readouterr().err


def test_an_error_is_reported_in_one_line(tmp_path: Path, other: Hostile, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pem").write_text("no certificate")
    (tmp_path / "key").write_text("two words")
    for words, message in (
        (["ask", "--server", "http://127.0.0.1:1", "Hello!"], "Nothing answers at http://127.0.0.1:1/v1"),
        (["ask", "--server", "ftp://x", "Hello!"], "is not the address of a server"),
        (["ask", "--server", other.url, "--key", "word", "Hello!"], "There is no option --key"),
        (["ask", "--server", other.url, "--key-file", str(tmp_path / "no"), "Hello!"], "cannot be read"),
        (["ask", "--server", other.url, "--key-file", str(tmp_path / "key"), "Hello!"], "This is no key"),
        (["servers", "add", other.url, "--certificate", str(tmp_path / "pem")], "This is no certificate"),
        (["servers", "rm", "nobody"], "No server nobody is kept here"),
    ):
        assert main([*words, "--data", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    assert other.posts == []


def test_doctor_reports_which_server_would_answer(
    tmp_path: Path, far: Loopback, other: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path)]
    assert main(["doctor", "--server", far.url, *data]) == 0
    output = capsys.readouterr().out
    assert f"at {far.url} answers, with the model imp-demo-196" in output and "2048 tokens" in output
    assert str(paths.demo_bundle()) not in output, "no local model would run"
    for words, sentence in (
        (["--server", "http://127.0.0.1:1"], "Nothing answers"),
        (["--server", other.url, "--model", "large"], "has no model large; it names tiny"),
    ):
        assert main(["doctor", *words, *data]) == 1
        assert sentence in capsys.readouterr().out
    other.gets["/v1/models"] = answer(MODELS, 500)
    assert main(["doctor", "--server", other.url, "--model", "tiny", *data, "--language", "zh"]) == 0
    assert "没有说明它有哪些模型" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "en", "zh"),
    [
        ({"content": ""}, "without a word", "一个字也没有"),
        ({"content": None, "tool_calls": [{"type": "function"}]}, "a call of a tool", "工具调用"),
        ({"content": None, "reasoning_content": "Hm."}, "only the model's reasoning", "思考过程"),
    ],
)
def test_an_answer_without_words_prints_more_than_an_empty_line(
    tmp_path: Path, other: Hostile, capsys: pytest.CaptureFixture[str], said: dict[str, object], en: str, zh: str
) -> None:
    other.acts = [answer({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]})]
    for language, note in (("en", en), ("zh", zh)):
        code = main(["ask", "--server", other.url, "?", "--data", str(tmp_path / "data"), "--language", language])
        output = capsys.readouterr()
        assert code != 0 and note in output.err and output.out.strip() == ""


def test_the_terminal_says_that_the_model_there_is_unverified(
    tmp_path: Path, other: Hostile, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--server", other.url, "--data", str(tmp_path)]
    assert main(["ask", *words, "Hello!"]) == 0
    assert "not verified" not in capsys.readouterr().err, "a server that does not report it"
    other.gets["/v1/models"] = answer({"data": [MODELS["data"][0] | {"unverified": True}]})
    assert main(["ask", *words, "Hello!"]) == 0
    assert capsys.readouterr().err.count("The model tiny of this server is not verified") == 1
    assert main(["doctor", *words]) == 0
    assert "! The model tiny of this server is not verified" in capsys.readouterr().out
