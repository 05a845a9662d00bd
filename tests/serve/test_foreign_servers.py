"""The remote engine with servers of other projects, which run the demo model in their own formats and give its right
answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from impchat import bundle, paths
from impchat.app import App
from impchat.engines.remote.engine import RemoteEngine
from impchat.errors import EngineError
from impchat.messages import Prompt, Sampling, Text, Turn
from impchat.models.convert import hf, mmproj
from impchat.peers import servers
from impchat.peers.servers import Server
from tests.core.conformance import ask, failed, finished, run, text_of
from tests.core.conftest import Draw, draw
from tests.serve import demo_checkpoint

__all__ = ["draw"]  # a fixture

SECONDS = 120.0  # far longer than a server takes to start on a busy machine
LIKELIEST = Sampling(temperature=0, max_tokens=32)
TRANSFORMERS = "import sys; from transformers.cli.transformers import main; sys.exit(main())"


@dataclass(frozen=True)
class Foreign:
    """A running server and its log."""

    server: Server
    log: Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def process(words: Sequence[str], server: Server, folder: Path) -> Iterator[Foreign]:
    """Run Python with `words`, and wait until the server answers at the address of `server`."""
    log = folder / "log"
    own = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
    with log.open("wb") as out:
        started = subprocess.Popen(
            [sys.executable, *words], env=os.environ | own, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        for _ in range(round(SECONDS / 0.2)):
            assert started.poll() is None, log.read_text()
            with closing(RemoteEngine(server)) as engine:
                try:
                    engine.connect()
                    break
                except EngineError as exc:
                    assert exc.code == "remote.refused", exc
            threading.Event().wait(0.2)
        yield Foreign(server, log)
    finally:
        started.terminate()
        started.wait(SECONDS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_checkpoint.write(tmp_path_factory.mktemp("demo") / "checkpoint", bundle.load(paths.demo_bundle()))


@pytest.fixture(scope="module")
def llama(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """llama-cpp-python's server, with an API key."""
    folder, port = tmp_path_factory.mktemp("llama"), free_port()
    eyes = folder / "mmproj.gguf"
    mmproj.export(checkpoint, eyes)
    words = ["-m", "llama_cpp.server", "--model", str(bundle.load(paths.demo_bundle()).language)]
    words += ["--model_alias", "demo", "--chat_format", "mtmd", "--clip_model_path", str(eyes), "--api_key", "word"]
    words += ["--n_ctx", "2048", "--n_threads", "1", "--host", "127.0.0.1", "--port", str(port)]
    with process(words, servers.at(f"http://127.0.0.1:{port}", "word"), folder) as running:
        yield running


@pytest.fixture(scope="module")
def transformers(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """`transformers serve`."""
    folder, port = tmp_path_factory.mktemp("transformers"), free_port()
    model = folder / "model"
    hf.export(checkpoint, model)
    words = ["-c", TRANSFORMERS, "serve", str(model), "--trust-remote-code", "--device", "cpu"]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    with process(words, servers.at(f"http://127.0.0.1:{port}"), folder) as running:
        yield running


@pytest.fixture(params=["llama", "transformers"])
def foreign(request: pytest.FixtureRequest) -> Foreign:
    running: Foreign = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def engine(foreign: Foreign) -> Iterator[RemoteEngine]:
    with closing(RemoteEngine(foreign.server)) as engine:
        yield engine


def test_it_answers_about_a_picture_in_pieces(engine: RemoteEngine, draw: Draw) -> None:
    for colour in ("red", "blue"):
        events = run(engine.start(ask("What colour is the circle?", draw(colour, (240, 240))), LIKELIEST))
        assert colour in text_of(events)
        assert finished(events).finish_reason == "stop"
        assert len([e for e in events if isinstance(e, Text)]) > 2


def test_it_continues_a_conversation(engine: RemoteEngine, draw: Draw) -> None:
    said = (Turn("user", "What colour is the circle?", (draw("red", (240, 240)),)), Turn("assistant", "It is red."))
    asked = Prompt("", (*said, Turn("user", "How many shapes are there?")), "a")
    assert "one" in text_of(run(engine.start(asked, LIKELIEST))).lower()


def test_a_chat_uses_it_from_the_picture_to_the_history(engine: RemoteEngine, draw: Draw, tmp_path: Path) -> None:
    engine.connect()
    with App.open(tmp_path, engine=engine) as app:
        chat = app.chat()
        for _ in chat.attach(draw("red", (240, 240)).data).events():
            pass
        message = chat.send("What colour is the circle?", sampling=LIKELIEST).wait()
    assert (message.state, "red" in message.text) == ("done", True)


def test_an_answer_is_at_most_as_long_as_requested(engine: RemoteEngine, draw: Draw) -> None:
    events = run(engine.start(ask("What colour is the circle?", draw("red")), Sampling(temperature=0, max_tokens=2)))
    assert finished(events).finish_reason == "length"


def test_an_unsupported_field_is_refused_by_transformers_only_once(transformers: Foreign) -> None:
    before = transformers.log.read_text().count(" 422 ")
    with closing(RemoteEngine(transformers.server)) as engine:
        for _ in range(2):
            assert finished(run(engine.start(ask("Hello!"), LIKELIEST))).stats.prompt_tokens > 0
    assert transformers.log.read_text().count(" 422 ") == before + 1


def test_llama_cpp_python_requires_its_key(llama: Foreign) -> None:
    for key, code in (("wrong", "remote.key_wrong"), ("", "remote.key_missing")):
        with closing(RemoteEngine(servers.at(llama.server.urls[0], key))) as engine:
            assert failed(run(engine.start(ask("Hello!"), LIKELIEST))) == code
