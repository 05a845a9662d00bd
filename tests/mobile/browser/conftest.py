"""Fixtures of the tests in Chromium: a phone of 412 x 915 with a camera whose picture the test chooses.

A request to another machine, a failed request or an error in the console fails the test.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from impchat.app import App
from impchat.engines import Engine
from tests.mobile.hands import boot
from tests.mobile.site import SECONDS, Site

# Flet's page always asks for this one script of another machine; the policy forbids it before anything is sent.
REFUSED = "https://cdn.jsdelivr.net/npm/@rive-app/"
FONTS = "/assets/fonts/"  # of which this machine may lack one
SEND = {"en": "Send", "zh": "发送"}


class Camera:
    """Chromium's camera: a video file, which is read again whenever the camera is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def films(self, picture: bytes) -> None:
        """Show this picture when the camera is opened next. The format is YUV4MPEG2, without compression."""
        still = Image.new("RGB", (640, 480), "white")
        shown = Image.open(io.BytesIO(picture)).convert("RGB")
        shown.thumbnail(still.size)
        still.paste(shown, ((640 - shown.width) // 2, (480 - shown.height) // 2))
        light, *colours = still.convert("YCbCr").split()
        planes = [light.tobytes(), *(colour.resize((320, 240)).tobytes() for colour in colours)]
        frame = b"FRAME\n" + b"".join(planes)
        self.path.write_bytes(b"YUV4MPEG2 W640 H480 F30:1 Ip A1:1 C420jpeg\n" + 2 * frame)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Camera:
    return Camera(tmp_path_factory.mktemp("camera") / "film.y4m")


@pytest.fixture(scope="module")
def browser(camera: Camera) -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "the tests of the app need Chromium: sudo apt-get install -y chromium"
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
    arguments = [
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera.path}",
        *(["--no-sandbox"] if as_root else []),
    ]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


class Phone:
    """The app open on a phone, over restarts."""

    def __init__(self, browser: Browser, data: Path, language: str, dark: bool, engine: Engine | None) -> None:
        self._data, self._language, self._engine = data, language, engine
        self.site = Site(data, language, engine)
        self._context = browser.new_context(
            viewport={"width": 412, "height": 915},
            has_touch=True,
            is_mobile=True,
            color_scheme="dark" if dark else "light",
            permissions=["camera", "clipboard-read", "clipboard-write"],
        )
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self._wrong: list[str] = []
        self.page.on(
            "console", lambda said: self._heard(said.text, said.location["url"]) if said.type == "error" else 0
        )
        self.page.on("pageerror", lambda error: self._heard(str(error)))
        self.page.on("requestfailed", lambda request: self._heard("failed", request.url))
        self.page.on("request", lambda request: self._asked(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._heard(message.text, message.location["url"])

    def _heard(self, *words: str) -> None:
        said = " ".join(words)
        if REFUSED not in said and FONTS not in said:
            self._wrong.append(said)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.site.url, "blob:", "data:")):
            self._heard("asked", url)

    def boot(self, control: str = "") -> None:
        """Load the page; returns when `control` is there, by default the button to send."""
        boot(self.page, self.site.url, control or SEND[self._language])

    def restart(self, control: str = "") -> None:
        """End the app, and start it again on the same data and address: the browser keeps its keys."""
        self.page.evaluate("sessionStorage.clear()")  # Flet would find the session again, which is this process's
        self._end()
        self.site = Site(self._data, self._language, self._engine, self.site.port)
        self.boot(control)

    def _end(self) -> None:
        self.page.goto("about:blank")
        self.site.close()

    def close(self) -> None:
        self._end()
        self._context.close()
        assert self._wrong == []


Open = Callable[..., Phone]


@pytest.fixture
def phone(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the app: `phone(language, dark, before, engine)`, where `before` fills its history."""
    opened: list[Phone] = []

    def start(
        language: str = "en",
        dark: bool = False,
        before: Callable[[App], None] | None = None,
        engine: Engine | None = None,
    ) -> Phone:
        opened.append(Phone(browser, tmp_path / "data", language, dark, engine))
        if before:
            before(opened[-1].site.app)
        opened[-1].boot()
        return opened[-1]

    yield start
    for each in opened:
        each.close()
