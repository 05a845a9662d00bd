"""Controls stay the same while their lists are updated, and the settings that remain when a page serves the app;
without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import flet as ft
import pytest

from impchat import images, preferences, presentation, settings
from impchat.app import App
from impchat.models.copying import Source
from impchat.preferences import Preferences
from impchat_mobile import launch
from impchat_mobile.copies import Copy
from tests.core.loopback import serving
from tests.core.slow import SlowEngine
from tests.mobile.conftest import Play, drawing, picked
from tests.mobile.fake import Phone
from tests.mobile.test_chat import answered, ask
from tests.mobile.test_computer import OTHER, add_other, back, home, pair
from tests.serve.test_pairing import Home

__all__ = ["home"]

ME = settings.OWNER


@pytest.fixture
def several() -> Iterator[str]:
    """The address of a server with two models."""

    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "small"}, {"id": "large"}]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Models)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


async def held(phone: Phone, name: str, change: Any) -> None:
    """Press the control with this name, run `change`, and release: the same control must get the tap."""
    button = phone.named(name)
    await change()
    assert phone.named(name) is button, f"{name} was replaced under the finger"
    await phone.fire(button, "click")


def test_a_pressed_control_stays_while_its_list_is_updated(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        life = launch.Lifecycle.of(phone.page)
        await ask(phone, "Hello there")
        await answered(phone)
        await pair(phone, home)
        connect = life._shell.top
        await held(phone, "Test", connect.shown)
        await phone.until_words("Works")
        await back(phone)

        await phone.tap("Chats")
        await phone.tap("Models")
        models = life._shell.top
        await phone.until_words("Other demo")
        await held(phone, "Download", models.shown)
        await phone.until_words("Do you accept these terms?")
        await phone.tap("Cancel")
        life._navigator.copies.known["half"] = Copy("half", "Half", Source("http://127.0.0.1:9/x", "0" * 64))
        await models.shown()
        await held(phone, "Resume", models.shown)
        await phone.until_words("127.0.0.1")
        await back(phone)

        async def one_more() -> None:
            app.history.create_conversation(ME, "Another one")
            await life._navigator.history.refresh()

        await phone.tap("Chats")
        [row] = app.history.conversations(ME)
        await held(phone, f"More: {row.title}", one_more)
        await phone.until_words("Rename")

    play(scene)


def test_a_pressed_photo_stays_while_the_library_is_searched(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "What colour is the circle?")
        await answered(phone)
        await phone.tap("Chats")
        await phone.tap("Photo library")
        library = launch.Lifecycle.of(phone.page)._shell.top
        await held(phone, "Picture of: What colour is the circle?", library.shown)
        await phone.until_words("Open its chat")

    play(scene, {"pick_files": picked(drawing("red"))})


def test_a_chat_without_words_has_one_title_on_every_screen(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        row = app.history.create_conversation(ME)
        picture = app.history.add_image(images.prepare(drawing("red")), ME).sha256
        question = app.history.add_question(row.uuid, ME, parent=None, text="", images=[picture])
        answer = app.history.start_answer(row.uuid, ME, parent=question.uuid, model="other")
        app.history.finish_answer(answer.uuid, text="", state="stopped")
        title = presentation.title_of(app.history.conversation(row.uuid, ME), "en")
        assert title.startswith("Picture, ")
        await phone.tap("Chats")
        await phone.tap(title)
        await phone.until(lambda: phone.all(ft.Text, value=title, size=17), "the title")
        await phone.tap("Chats")
        await phone.tap("Photo library")
        await phone.until_words(f"Picture of: {title}")

    play(scene)


def test_the_list_of_chats_grows_while_scrolling_and_the_entries_below_it_stay(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        for number in range(130):
            app.history.create_conversation(ME, f"chat {number}")
        await phone.tap("Chats")
        entries = phone.one(ft.ListView, scroll_interval=100)
        assert phone.named("Settings") not in list(entries.controls)
        for shown in (60, 120, 130, 130):
            assert len(phone.all(ft.ListTile)) == shown
            end = {"pixels": 5000, "min_scroll_extent": 0, "max_scroll_extent": 5000, "viewport_dimension": 600,
                   "event_type": "update", "axis": "vertical", "is_reversed": False, "out_of_range": False}  # fmt: skip
            await phone.fire(entries, "scroll", end)
        await phone.tap("Settings")
        await phone.until_words("Appearance")

    play(scene)


def test_a_drawer_that_does_not_respond_is_shown_by_a_new_view(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(phone: Phone, app: App) -> None:
        first, shown = phone.page.views[-1], []

        async def show() -> None:
            if phone.page.views[-1] is first:
                raise TimeoutError
            shown.append(phone.page.views[-1])

        monkeypatch.setattr(phone.page, "show_drawer", show)
        await phone.type("Ask about a picture", "half a sen")
        await phone.tap("Chats")
        assert shown == [phone.page.views[-1]]
        assert phone.one(ft.TextField, label="Ask about a picture").value == "half a sen"
        assert "Something went wrong" not in phone.words()

    play(scene)


# Another server


def test_a_wrong_address_keeps_the_typed_text(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Chats")
        await phone.tap("My computer")
        await phone.tap("Another server")
        await phone.type("Address", "http://127.0.0.1:9")
        await phone.type("Key", "a-key")
        await phone.tap("Save")
        await phone.until(lambda: [t for t in phone.all(ft.Text) if "127.0.0.1:9" in (t.value or "")], "the failure")
        assert phone.one(ft.TextField, label="Key").value == "a-key"
        assert phone.one(ft.TextField, label="Address").value == "http://127.0.0.1:9"
        assert launch.Lifecycle.of(phone.page)._navigator.links.servers == {}

    play(scene)


def test_one_of_several_models_on_a_server_is_chosen(play: Play, several: str) -> None:
    async def scene(phone: Phone, app: App) -> None:
        links = launch.Lifecycle.of(phone.page)._navigator.links
        await phone.tap("Chats")
        await phone.tap("My computer")
        await phone.tap("Another server")
        await phone.type("Address", several)
        await phone.tap("Save")
        await phone.until_words("several models")
        assert links.servers == {}
        await phone.tap("Save")  # nothing is chosen yet
        assert links.servers == {}
        group = next(g for g in phone.all(ft.RadioGroup) if g.content.controls[0].value == "small")
        phone.session.apply_patch(group._i, {"value": "large"})
        await phone.tap("Save")
        await phone.until_words("Connected with")
        [server] = links.servers.values()
        assert server.model == "large"

    play(scene)


# New chats


def test_a_paired_computer_answers_new_chats_if_that_is_chosen_even_after_a_restart(play: Play, home: Home) -> None:
    async def choose(phone: Phone, app: App) -> None:
        await pair(phone, home)
        await phone.fire(phone.one(ft.SnackBarAction, label="Use it for new chats"), "click")
        [server] = launch.Lifecycle.of(phone.page)._navigator.links.servers.values()
        assert phone.one(ft.RadioGroup).value == server.id
        await back(phone)
        await phone.until_words(f"On {server.name}")
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("New chat")
        await phone.until_words(f"On {server.name}")

    async def again(phone: Phone, app: App) -> None:
        await phone.tap("New chat")
        await ask(phone, "Hello again")
        await answered(phone)
        assert not app.loaded
        await phone.tap("Chats")
        await phone.tap("My computer")
        group = phone.one(ft.RadioGroup)
        phone.session.apply_patch(group._i, {"value": ""})
        await phone.fire(group, "change")
        await back(phone)
        await phone.tap("New chat")
        await phone.until_words("On this phone")

    play(choose)
    play(again)


# Served by a page


def test_an_app_served_by_a_page_chooses_the_model_but_not_how_it_runs(play: Play, tmp_path: Path) -> None:
    async def scene(phone: Phone, app: App) -> None:
        preferences.save(app.data, Preferences(threads=1, context_tokens=512))
        launch.Lifecycle.of(phone.page)._shell.preferences = preferences.load(app.data)
        before = app.resources
        await phone.tap("More")
        await phone.tap("Settings")
        assert "Processor threads" not in phone.words()
        assert "Memory for a chat" not in phone.words()
        await back(phone)
        await phone.tap("Chats")
        await phone.tap("Models")
        await phone.tap("Use it")
        await phone.until(lambda: app.model == OTHER, "the choice")
        assert app.resources == before

    add_other(tmp_path)
    play(scene, engine=SlowEngine(), model="imp-demo-196", shares=True)


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "below a page"])
def test_no_change_of_settings_interrupts_an_answer(play: Play, tmp_path: Path, shares: bool) -> None:
    engine = SlowEngine(words_per_s=20, reading_s=0)

    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await phone.until(lambda: not app.idle, "the answer")
        await phone.tap("More")
        await phone.tap("Settings")
        if not shares:
            context = phone.all(ft.SegmentedButton)[2]
            before = list(context.selected)
            phone.session.apply_patch(context._i, {"selected": ["1024"]})
            await phone.fire(context, "change")
            assert "wait for its end" in phone.words()
            assert context.selected == before
            assert preferences.load(app.data).context_tokens is None
        await back(phone)
        await phone.tap("Chats")
        await phone.tap("Models")
        await phone.tap("Use it")
        await phone.until_words("wait for its end")
        assert app.model == "imp-demo-196"
        await phone.until(lambda: app.idle, "the end of the answer")
        [row] = app.history.conversations(ME)
        assert app.history.messages(row.uuid, ME)[-1].state == "done"
        await phone.tap("Use it")
        await phone.until(lambda: app.model == OTHER, "the choice")

    add_other(tmp_path)
    play(scene, engine=engine, model="imp-demo-196", shares=shares)
