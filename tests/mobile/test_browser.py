"""The app in Chromium, as a phone shows it: drawn, touched, reloaded. What needs no browser is tested without one."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from impchat import preferences, settings
from impchat.app import App
from impchat.preferences import Preferences
from impchat.server import listen, loopback
from impchat_mobile import host, launch
from tests.mobile.conftest import drawing
from tests.mobile.hands import CHINESE, SECONDS, boot, button, tap, wait_for, words, write

ME = settings.OWNER
HINT = "Ask about a picture"
# Flet's page always asks for this one script of another machine; the policy forbids it before anything is sent.
REFUSED = "https://cdn.jsdelivr.net/npm/@rive-app/"


class Site:
    """`impchat mobile` on a free port."""

    def __init__(self, data: Path, language: str) -> None:
        self.app = launch.open_app(data)

        async def main(page: Any) -> None:
            await launch.start(page, lambda: self.app, language)

        bound = loopback.bind("127.0.0.1", 0)
        self.url = f"{listen.address(bound)}/"
        self._server = listen.Server(host.build_app(main), lambda: None, **loopback.SOCKETS)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        self.app.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "the tests of the app need Chromium: sudo apt-get install -y chromium"
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
    fake_camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments = ["--disable-gpu", "--disable-dev-shm-usage", *fake_camera, *(["--no-sandbox"] if as_root else [])]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


Open = Callable[..., tuple[Site, Page]]


@pytest.fixture
def phone(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Opens the app on a phone of 412 x 915: `phone(language, dark, before)`, where `before` fills
    its history. A request that leaves the machine, a failed one,
    or an error in the console fails the test."""
    closing: list[Callable[[], None]] = []

    def start(
        language: str = "en", dark: bool = False, before: Callable[[App], None] | None = None
    ) -> tuple[Site, Page]:
        site = Site(tmp_path / "data", language)
        if before:
            before(site.app)
        context = browser.new_context(
            viewport={"width": 412, "height": 915},
            has_touch=True,
            is_mobile=True,
            color_scheme="dark" if dark else "light",
            permissions=["camera", "clipboard-read", "clipboard-write"],
        )
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        # The font that Chinese needs; on a phone it is the system's.
        fonts = (lambda route: route.fulfill(path=CHINESE)) if CHINESE.exists() else (lambda route: route.abort())
        page.route("**/assets/fonts/noto*/**", fonts)
        wrong: list[str] = []

        def heard(text: str) -> None:
            if REFUSED not in text and "fonts/noto" not in text:
                wrong.append(text)

        page.on("console", lambda message: heard(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: heard(str(error)))
        page.on("requestfailed", lambda request: heard(request.url))
        page.on("request", lambda r: None if r.url.startswith((site.url, "blob:", "data:")) else heard(r.url))

        def close() -> None:
            context.close()
            site.close()
            assert wrong == []

        closing.append(close)
        boot(page, site.url, {"en": "Send", "zh": "发送"}[language])
        return site, page

    yield start
    for close in closing:
        close()


def attach(page: Page, label: str, data: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        tap(page, label)
    chooser.value.set_files({"name": "picture.png", "mimeType": "image/png", "buffer": data})


def test_a_first_launch_answers_about_a_picked_picture_and_is_still_there_after_a_reload(phone: Open) -> None:
    site, page = phone()
    assert "Imp demo" in words(page)
    attach(page, "Choose pictures", drawing("red"))
    wait_for(page, "Ready, ask anything")
    write(page, HINT, "What colour is the circle?")
    tap(page, "Send")
    assert "red" in wait_for(page, "tokens/s").lower()
    boot(page, site.url, "Send")
    assert "red" in wait_for(page, "tokens/s").lower()
    tap(page, "Chats")
    wait_for(page, "Today")


def test_in_chinese_and_in_the_dark_a_photographed_picture_is_answered(phone: Open) -> None:
    _, page = phone("zh", dark=True)
    tap(page, "拍照")
    button(page, "按下快门").wait_for(state="attached")
    page.wait_for_timeout(1500)  # the preview has to run before a photo can be taken
    tap(page, "按下快门")
    wait_for(page, "读完了，请提问")
    write(page, "就图片提问", "图里有什么？")
    tap(page, "发送")
    wait_for(page, "词元")


def long_chat(app: App) -> None:
    """A chat of 500 messages, which is open at the next start."""
    history = app.history
    chat = history.create_conversation(ME).uuid
    parent = None
    for number in range(250):
        question = history.add_question(chat, ME, parent=parent, text=f"Question {number}")
        parent = history.start_answer(chat, ME, parent=question.uuid, model="other").uuid
        history.finish_answer(parent, text=f"Answer {number}", state="done")
    preferences.save(app.data, Preferences(conversation=chat))


def test_in_a_chat_of_500_messages_nothing_typed_is_lost_while_an_answer_grows_and_after_rotation(phone: Open) -> None:
    _, page = phone(before=long_chat)
    wait_for(page, "Answer 249")
    page.mouse.move(200, 400)
    page.mouse.wheel(0, -3000)
    write(page, HINT, "Hello")
    tap(page, "Send")
    text = "The quick brown fox jumps over the lazy dog"
    write(page, HINT, text)
    page.set_viewport_size({"width": 915, "height": 412})
    page.wait_for_timeout(300)
    assert page.get_by_label(HINT).first.input_value() == text
