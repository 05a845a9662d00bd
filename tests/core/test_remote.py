"""The remote engine passes the conformance suite with a server that follows the protocol exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from impchat.bundle import Bundle
from impchat.engines import Engine
from impchat.engines.local.engine import LocalEngine
from impchat.engines.remote.engine import RemoteEngine
from impchat.peers import servers
from tests.core.conformance import EngineConformance
from tests.core.hands import NO_TOKEN
from tests.core.loopback import Loopback, serving


@contextmanager
def served(bundle: Bundle) -> Iterator[Loopback]:
    """A server of `bundle`."""
    engine = LocalEngine(bundle, threads=1)
    server = Loopback(engine)
    with serving(server):
        yield server
    engine.close()


@contextmanager
def connected(url: str, **options: float) -> Iterator[RemoteEngine]:
    engine = RemoteEngine(servers.at(url), **options)
    engine.connect()
    yield engine
    engine.close()


class TestConformance(EngineConformance):
    @pytest.fixture
    def engine(self, demo: Bundle) -> Iterator[Engine]:
        with served(demo) as server, connected(server.url) as engine:
            yield engine

    @pytest.fixture
    def endless(self, demo: Bundle) -> Iterator[Engine]:
        bundle = replace(demo, text=replace(demo.text, eos=(NO_TOKEN,)))
        with served(bundle) as server, connected(server.url) as engine:
            yield engine
