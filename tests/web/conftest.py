"""Fixtures of the page's tests: ImpChat-Web on a free loopback port, a real Chromium, and drawn pictures.

A page fails its test if it sends a request to another machine or logs an error.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from impchat.app import App
from impchat.engines import Engine
from impchat.server.http import loopback
from impchat.server.network import sockets
from impchat.server.tokens import Access
from impchat_web import server

SECONDS = 30.0  # a limit far above normal durations; it is reached only by a failure


class Site:
    """A running ImpChat-Web."""

    def __init__(self, data: Path, engine: Engine | None = None, language: str | None = None, port: int = 0) -> None:
        self.app = App.open(data, engine=engine)
        self.access = Access(data)
        bound = loopback.bind("127.0.0.1", port)
        self.port = bound.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        started = threading.Event()
        self._server = sockets.Server(
            server.build_app(self.app, language, self.access), started.set, **loopback.SOCKETS
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]})
        self._thread.start()
        assert started.wait(SECONDS)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.access.close()


Serve = Callable[..., Site]
Visit = Callable[..., Page]


@pytest.fixture
def serve(tmp_path: Path, browser: Browser) -> Iterator[Serve]:
    """Starts ImpChat-Web on the test's own data folder, with the demo model or a given engine.

    It depends on `browser` for its running event loop: without one, Gradio creates loops that nobody closes.
    """
    sites: list[Site] = []

    def start(engine: Engine | None = None, language: str | None = None, port: int = 0) -> Site:
        sites.append(Site(tmp_path / "data", engine, language, port))
        return sites[-1]

    yield start
    for site in sites:
        site.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "the tests of the page need Chromium: sudo apt-get install -y chromium"
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
    with sync_playwright() as playwright:
        expect.set_options(timeout=SECONDS * 1000)
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if as_root else [])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens an address in a new browser context. `may_log`: parts of error messages that are expected."""
    checks: list[Callable[[], None]] = []

    def open_page(address: str, may_log: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(**({"locale": "en-GB"} | options))
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        wrong: list[str] = []
        home = address.split("/?")[0]

        def log(text: str) -> None:
            if not any(part in text for part in may_log):
                wrong.append(text)

        def heard(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                log(f"{message.text} ({message.location['url']})")

        page.on("console", heard)
        page.on("pageerror", lambda error: log(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith((home, "blob:", "data:")) else wrong.append(request.url),
        )

        def check() -> None:
            context.close()
            assert wrong == []

        checks.append(check)
        page.goto(address)
        page.wait_for_selector("body.ready")
        return page

    yield open_page
    for check in checks:
        check()


def drawing(
    colour: str = "red", shape: str = "ellipse", size: tuple[int, int] = (320, 240), paper: str = "white"
) -> bytes:
    """A PNG with one shape on white or coloured paper."""
    picture = Image.new("RGB", size, paper)
    getattr(ImageDraw.Draw(picture), shape)([100, 60, 220, 180], fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
