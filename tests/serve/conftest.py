"""Fixtures of the server's tests: the API with the demo model on free loopback ports, and drawn pictures."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageDraw

from impchat.app import App
from impchat.engines import Engine
from impchat.server.api.routes import build_api
from impchat.server.network import sockets

SECONDS = 30.0  # a limit far above normal durations; it is reached only by a failure
MODEL = "imp-demo-196"


class Site:
    """A running API. `api` is the ASGI application to serve, by default that of `app`."""

    def __init__(self, app: App, api: Any = None, **how: Any) -> None:
        self.app = app
        bound = sockets.bind("127.0.0.1", 0)
        self.url = sockets.address(bound, "https" if how else "http")
        self.port = bound.getsockname()[1]
        started = threading.Event()
        self._server = sockets.Server(api or build_api(app), started.set, **how)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]})
        self._thread.start()
        assert started.wait(SECONDS)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.app.close()

    def client(self, **how: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False, **how)


Serve = Callable[..., Site]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The API of the demo model."""
    running = Site(App.open(tmp_path_factory.mktemp("data")))
    yield running
    running.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves the API of the given engine, with options of `build_api`."""
    sites: list[Site] = []

    def start(engine: Engine | None = None, **how: Any) -> Site:
        app = App.open(tmp_path / f"data{len(sites)}", engine=engine)
        sites.append(Site(app, build_api(app, **how)))
        return sites[-1]

    yield start
    for each in sites:
        each.close()


def wait_until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def drawing(colour: str = "red", size: tuple[int, int] = (320, 240)) -> bytes:
    """A PNG with one circle on white."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse([100, 60, 220, 180], fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def data_uri(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def question(text: str, *pictures: str) -> dict[str, Any]:
    """A user's message with pictures by their URLs."""
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def asking(*messages: dict[str, Any], model: str = MODEL, **how: Any) -> dict[str, Any]:
    """The body of a chat completion with greedy sampling."""
    return {"model": model, "messages": list(messages), "temperature": 0} | how
