"""The engine over `impchat serve`: the suite of every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from impchat import paths, servers
from impchat.engines import Engine
from impchat.engines.local import LocalEngine
from impchat.engines.remote import RemoteEngine
from impchat.models import bundle
from tests.core.conformance import EngineConformance
from tests.core.conftest import draw
from tests.core.hands import NO_TOKEN
from tests.serve.conftest import Serve

__all__ = ["draw"]  # a fixture

Open = Callable[..., RemoteEngine]


@pytest.fixture
def connect(serve: Serve) -> Iterator[Open]:
    """Opens engines over servers of the demo model. `eos`: what ends an answer there, where it is not its own."""
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
