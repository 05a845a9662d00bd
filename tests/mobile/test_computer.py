"""A phone and a real ImpChat server on loopback, with TLS: pairing, remote answers, and copying models and chats."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import flet as ft
import pytest
import segno

from impchat import paths, settings
from impchat.app import App
from impchat.engines.remote.engine import RemoteEngine
from impchat.errors import SettingsError
from impchat.models import copying, library
from impchat.models.copying import Source
from impchat.peers import pairing, servers, sync
from impchat_mobile import cli, launch
from impchat_mobile.copies import Copy
from tests.core.hands import copy_model
from tests.mobile.conftest import Play, drawing, picked
from tests.mobile.fake import Phone
from tests.mobile.test_chat import answered, ask
from tests.serve.test_pairing import Home

ME = settings.OWNER
OTHER = "other-demo"


def add_other(data: Path) -> None:
    """Add a second model to the data folder `data`."""
    folder = paths.models_dir(data) / OTHER
    folder.mkdir(parents=True)
    for file in paths.demo_bundle().iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            content = content.replace(b'"imp-demo-196"', f'"{OTHER}"'.encode()).replace(b"Imp demo @196", b"Other demo")
        (folder / file.name).write_bytes(content)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The server, which has one model more than the phone."""
    data = tmp_path / "computer"
    add_other(data)
    opened = Home(data)
    yield opened
    opened.close()


async def pair(phone: Phone, home: Home) -> None:
    await phone.tap("Chats")
    await phone.tap("My computer")
    await phone.type("Address or pairing link", str(home.link()))
    await phone.tap("Pair")
    await phone.until(lambda: phone.all(ft.FilledTonalButton, content="Test"), "the computer in the list")


async def back(phone: Phone) -> None:
    await phone.session.dispatch_event(phone.page._i, "view_pop", {"route": phone.page.views[-1].route})


async def choose_computer(phone: Phone) -> None:
    """Choose the computer for the answers of the open chat."""
    await phone.tap("Where it is answered")
    tile = next(t for t in phone.all(ft.ListTile) if isinstance(t.title, ft.Text) and t.title.value.startswith("On ")
                and "this phone" not in t.title.value)  # fmt: skip
    await phone.fire(tile, "click")


def test_a_paired_computer_answers_one_chat_and_the_phone_the_next(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await pair(phone, home)
        await phone.tap("Test")
        await phone.until_words("sees pictures")
        await back(phone)
        await choose_computer(phone)
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await ask(phone, "What colour is the circle?")
        assert "red" in (await answered(phone))[0].lower()
        assert not app.loaded, "the phone's own model was not needed"
        await phone.tap("New chat")
        await ask(phone, "Hello")
        await answered(phone)
        assert app.loaded

    play(scene, {"pick_files": picked(drawing("red"))})


def test_a_computer_with_an_unverified_model_is_called_so(play: Play, tmp_path: Path) -> None:
    data = tmp_path / "doubting"
    copy_model(paths.demo_bundle(), paths.models_dir(data) / "doubtful", id="doubtful", unverified="nll 3.1 (≤ 2.5)")
    library.choose(data, "doubtful", unverified=True)

    async def scene(phone: Phone, app: App) -> None:
        await pair(phone, home)
        await phone.tap("Test")
        await phone.until_words("Unverified model")
        await back(phone)
        await choose_computer(phone)
        await phone.until_words("doubtful · Unverified model")

    with closing(Home(data)) as home:
        play(scene)


def test_it_is_known_as_soon_as_the_computer_reads_a_picture(play: Play, tmp_path: Path) -> None:
    data = tmp_path / "doubting"
    copy_model(paths.demo_bundle(), paths.models_dir(data) / "doubtful", id="doubtful", unverified="nll 3.1 (≤ 2.5)")
    library.choose(data, "doubtful", unverified=True)

    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words("doubtful")
        assert "Unverified" not in phone.words()
        await phone.tap("Choose pictures")
        await phone.until_words("doubtful · Unverified model")

    with closing(Home(data)) as home:
        play(scene, {"pick_files": picked(drawing("red"))}, server=pairing.pair(home.link(), "browser"))


def test_a_server_of_the_command_line_answers_if_nothing_else_was_chosen(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words(f"On {server.name}")
        await ask(phone, "Hello")
        await answered(phone)
        assert not app.loaded

    server = pairing.pair(home.link(), "browser")
    play(scene, server=server)


def test_the_choice_of_this_phone_is_remembered_too(play: Play, home: Home) -> None:
    """With a server on the command line, a chat switched to this phone stays on it, even after a restart."""

    async def here(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("Where it is answered")
        await phone.tap("On this phone · Imp demo @196")
        await phone.until_words("On this phone")
        await phone.tap("New chat")
        await phone.until_words(f"On {server.name}")
        [row] = app.history.conversations(ME)
        await phone.tap("Chats")
        await phone.tap(row.title)
        await phone.until_words("On this phone")

    async def again(phone: Phone, app: App) -> None:
        await phone.until_words("On this phone")
        await phone.tap("Where it is answered")
        await phone.tap("My computer")
        await phone.until(lambda: phone.all(ft.FilledTonalButton, content="Test"), "the server")
        assert "Forget" not in phone.words(), "it comes from the command line"
        await back(phone)
        await choose_computer(phone)
        await phone.until_words(f"On {server.name}")
        await ask(phone, "Hello again")
        await answered(phone, 2)
        assert not app.loaded

    server = pairing.pair(home.link(), "browser")
    play(here, server=server)
    play(again, server=server)


def test_the_app_on_a_pages_address_says_that_a_server_answers(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words(f"On {server.name}")

    server = pairing.pair(home.link(), "page")
    engine = RemoteEngine(server)
    engine.connect()
    play(scene, engine=engine)


def test_an_unknown_server_is_reported_before_the_app_opens(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nobody"):
        cli.run(["--server", "nobody", "--port", "0", "--data", str(tmp_path)])


def test_a_photographed_qr_code_pairs(play: Play, home: Home) -> None:
    photo = io.BytesIO()
    segno.make(str(home.link())).save(photo, kind="png", scale=6, border=4)
    camera = {"name": "0", "lens_direction": "back", "sensor_orientation": 0}

    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Chats")
        await phone.tap("My computer")
        await phone.tap("Scan the QR code")
        shutter = await phone.until(
            lambda: [c for c in phone.all(ft.Semantics) if c.label == "Take the photo"], "a shutter"
        )
        await phone.fire(shutter[0].content, "click")
        await phone.until_words("Paired with")

    play(scene, {"get_available_cameras": [camera], "take_picture": photo.getvalue()})


def test_a_used_code_is_reported_in_a_sentence(play: Play, home: Home) -> None:
    link = str(home.link())

    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Chats")
        await phone.tap("My computer")
        for _ in range(2):
            await phone.type("Address or pairing link", link)
            await phone.tap("Pair")
        await phone.until_words("code")
        assert len(phone.all(ft.FilledTonalButton, content="Test")) == 1

    play(scene)


def test_a_model_is_copied_from_the_computer_after_its_licence_is_accepted(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await pair(phone, home)
        await back(phone)
        await phone.tap("Chats")
        await phone.tap("Models")
        await phone.until_words("Other demo")
        await phone.tap("Download")
        await phone.tap("Accept")
        await phone.until(lambda: any(m.id == OTHER and m.bundle for m in library.models(app.data)), "the model")
        await phone.until(lambda: phone.all(ft.FilledTonalButton, content="Use it"), "its button")
        await phone.tap("Use it")
        await phone.until(lambda: app.model == OTHER, "the choice")
        assert copying.unfinished(app.data) == []

    play(scene)


def test_a_copy_resumes_from_a_computer_with_a_new_address(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await pair(phone, home)
        [server] = await asyncio.to_thread(servers.load, app.data)
        offers = await asyncio.to_thread(sync.offers, server)
        [sha256] = [offer.sha256 for offer in offers if offer.id == OTHER]
        gone = Source("https://127.0.0.1:9/bundles/other-demo", sha256, server.id)
        copies = launch.Lifecycle.of(phone.page)._navigator.copies
        copies.known[OTHER] = Copy(OTHER, "Other demo", gone)
        await back(phone)
        await phone.tap("Chats")
        await phone.tap("Models")
        await phone.tap("Resume")
        await phone.until(lambda: any(m.id == OTHER and m.bundle for m in library.models(app.data)), "the model")

    play(scene)


def test_a_chat_is_handed_over_without_loss_or_duplicates(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "What colour is the circle?")
        await answered(phone)
        await pair(phone, home)
        await back(phone)
        for _ in range(2):
            await phone.tap("Where it is answered")
            tile = next(
                t for t in phone.all(ft.ListTile) if isinstance(t.title, ft.Text) and "Hand this" in t.title.value
            )
            await phone.fire(tile, "click")
            await phone.until_words("has this chat now")
        [here] = app.history.conversations(ME)
        [there] = home.site.app.history.conversations(ME)
        assert here.uuid == there.uuid
        mine, theirs = (h.messages(here.uuid, ME) for h in (app.history, home.site.app.history))
        assert [m.uuid for m in mine] == [m.uuid for m in theirs]
        assert home.site.app.history.image_bytes(mine[0].images[0])

    play(scene, {"pick_files": picked(drawing("red"))})


def test_an_unreachable_computer_is_reported_in_the_answer_and_the_phone_can_answer(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await pair(phone, home)
        await back(phone)
        await choose_computer(phone)
        home.site._server.should_exit = True
        home.site._thread.join(30)
        await ask(phone, "Hello")
        await phone.until(lambda: phone.all(ft.Icon, icon=ft.Icons.ERROR_OUTLINE), "the failure")
        await phone.tap("Where it is answered")
        await phone.tap("On this phone · Imp demo @196")
        await phone.tap("Answer again")
        await answered(phone)

    play(scene)
