"""The remote engine with `impchat serve`: the conformance suite, and features that need both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from impchat import bundle, paths
from impchat.app import App
from impchat.cli.main import main
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.engines.remote.engine import RemoteEngine
from impchat.messages import Dropped, Event, Prompt, Ready, Turn
from impchat.models import library
from impchat.peers import pairing, servers
from impchat.peers.servers import Server
from impchat.server.api.admission import AdmissionQueue
from tests.core.conformance import GREEDY, EngineConformance, ask, failed, finished, run, text_of
from tests.core.conftest import Draw, draw
from tests.core.hands import NO_TOKEN, copy_model
from tests.serve.conftest import Serve, Site
from tests.serve.test_pairing import Home

__all__ = ["draw"]  # a fixture

Open = Callable[..., RemoteEngine]


@pytest.fixture
def connect(serve: Serve) -> Iterator[Open]:
    """Opens engines over servers of the demo model. `eos`: the token that ends an answer there, if it is not the
    model's own."""
    opened: list[RemoteEngine] = []

    def start(eos: int | None = None) -> RemoteEngine:
        demo = bundle.load(paths.demo_bundle())
        if eos is not None:
            demo = replace(demo, text=replace(demo.text, eos=(eos,)))
        opened.append(RemoteEngine(servers.at(serve(LocalEngine(demo, threads=1)).url)))
        opened[-1].connect()
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


class TestConformance(EngineConformance):
    @pytest.fixture
    def engine(self, connect: Open) -> Engine:  # type: ignore[override]
        return connect()

    @pytest.fixture
    def endless(self, connect: Open) -> Engine:  # type: ignore[override]
        return connect(NO_TOKEN)


def test_after_a_prefill_on_the_server_only_the_question_is_processed(connect: Open, draw: Draw) -> None:
    engine = connect()
    prompt = Prompt("", (Turn("user", "", (draw("red"),)),), "a", open_turn=True)
    ready = run(engine.prefill(prompt))[-1]
    assert isinstance(ready, Ready) and ready.stats.new_tokens > engine.info.image_tokens > 0
    asked = replace(prompt, turns=(Turn("user", "What colour is the circle?", (draw("red"),)),), open_turn=False)
    events = run(engine.start(asked, engine.info.sampling))
    assert "red" in text_of(events)
    assert finished(events).stats.cached_tokens == ready.stats.prompt_tokens
    then = (Turn("assistant", text_of(events)), Turn("user", "How many shapes are there?"))
    later = finished(run(engine.start(replace(asked, turns=(*asked.turns, *then)), engine.info.sampling)))
    assert later.stats.cached_tokens > finished(events).stats.prompt_tokens, "the answer itself is not processed again"


def test_turns_that_the_server_dropped_are_reported(connect: Open) -> None:
    turns = tuple(Turn("assistant" if n % 2 else "user", "Where is the red circle? " * 20) for n in range(41))
    events = run(connect().start(Prompt("", turns, "a"), GREEDY))
    [dropped] = [e for e in events if isinstance(e, Dropped)]
    assert dropped.turns > 0 and dropped.tokens > 0
    assert text_of(events)


def test_the_servers_recommended_settings_are_known_here(connect: Open) -> None:
    engine, demo = connect(), bundle.load(paths.demo_bundle())
    assert engine.info.sampling == demo.sampling
    assert (engine.info.context_tokens, engine.info.image_tokens) == (demo.context_tokens, demo.image.tokens)


def test_an_unverified_model_is_known_as_one_over_any_number_of_servers(serve: Serve, tmp_path: Path) -> None:
    model = copy_model(paths.demo_bundle(), tmp_path / "doubtful", id="doubtful", unverified="nll 3.1 (≤ 2.5)")
    library.choose(tmp_path / "data", model, unverified=True)
    with closing(Site(App.open(tmp_path / "data", model))) as site:
        engine = RemoteEngine(servers.at(site.url))
        assert engine.connect().unverified and engine.info.unverified
        further = serve(engine)
        with closing(RemoteEngine(servers.at(further.url))) as last:
            assert last.connect().unverified
    demo = serve(LocalEngine(bundle.load(paths.demo_bundle()), threads=1))
    with closing(RemoteEngine(servers.at(demo.url))) as known:
        assert not known.connect().unverified


def test_an_error_of_the_server_is_shown_in_the_readers_language(serve: Serve, draw: Draw) -> None:
    site = serve(LocalEngine(bundle.load(paths.demo_bundle()), threads=1), queue=AdmissionQueue(0))
    with closing(RemoteEngine(servers.at(site.url), retry_s=0.01)) as engine:
        events = run(engine.start(ask("Hello!"), GREEDY))
    assert failed(events) == "remote.rate_limited"  # the server accepts no request
    many = tuple(Turn("user", "?", (draw(c),) * 9) for c in ("red",))
    site = serve(LocalEngine(bundle.load(paths.demo_bundle()), threads=1))
    with closing(RemoteEngine(servers.at(site.url))) as engine:
        events = run(engine.start(Prompt("", many), GREEDY))
    assert failed(events) == "question.too_many_images"


# A server at home: TLS with its own certificate, the only one that its devices trust


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    opened = Home(tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


def asked(server: Server) -> list[Event]:
    with closing(RemoteEngine(server, retry_s=0.01)) as engine:
        return run(engine.start(ask("Hello!"), GREEDY))


def test_a_paired_server_answers_over_tls_until_the_token_is_revoked(home: Home) -> None:
    server = pairing.pair(home.link(), "phone")
    assert text_of(asked(server))
    away = replace(server, urls=("https://127.0.0.1:1/v1", *server.urls))
    assert text_of(asked(away)), "the next address is tried"
    home.access.revoke("phone")
    assert failed(asked(server)) == "remote.key_wrong"
    assert failed(asked(replace(server, key=""))) == "remote.key_missing"


def test_no_certificate_but_the_paired_one_is_trusted(home: Home, tmp_path: Path) -> None:
    server = pairing.pair(home.link(), "careful")
    with closing(Home(tmp_path)) as other:
        swapped = replace(server, urls=(f"https://{other.place}/v1",))
        assert failed(asked(swapped)) == "remote.certificate_other"
    assert failed(asked(replace(server, certificate=None))) == "remote.certificate_unknown"
    plain = tuple(url.replace("https", "http") for url in server.urls)
    assert failed(asked(replace(server, urls=plain))) == "remote.hung_up"


def test_the_terminal_pairs_with_a_link_and_sends_a_question(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path)]
    assert main(["servers", "add", str(home.link()), "--name", "Home", *data]) == 0
    assert main(["ask", "--server", "Home", "Hello!", *data]) == 0
    assert capsys.readouterr().out.strip()
    assert main(["doctor", "--server", "Home", *data]) == 0
    assert main(["servers", "list", *data]) == 0
    assert "by its certificate alone" in capsys.readouterr().out
    assert main(["servers", "add", str(home.link()), "--key-file", "x", *data]) == 2
