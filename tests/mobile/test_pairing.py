"""Pairing on the phone: with a server found on the network, a typed address and code, or a link that opens the app."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import flet as ft
import pytest

from impchat import applock, settings
from impchat.app import App
from impchat.peers.pairing import Link
from impchat.server.api.routes import build_api
from impchat.server.network import sockets
from impchat.server.network.mdns import Announcement
from impchat.server.tokens import Access
from tests.mobile.conftest import Play
from tests.mobile.fake import Phone
from tests.serve.conftest import Site
from tests.serve.test_pairing import Home

ADDRESS, CODE = "Address or pairing link", "Code"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = Home(tmp_path / "computer")
    yield opened
    opened.close()


async def connect(phone: Phone) -> None:
    await phone.tap("Chats")
    await phone.tap("My computer")


def field(phone: Phone, label: str) -> str:
    return phone.one(ft.TextField, label=label).value or ""


async def paired(phone: Phone) -> None:
    await phone.until(lambda: phone.all(ft.FilledTonalButton, content="Test"), "the computer in the list")


def is_open(home: Home, code: str) -> bool:
    return home.access.code(code).state == "open"


def test_a_found_computer_is_paired_by_its_code_after_the_check_code_was_compared(play: Play, home: Home) -> None:
    link = home.link()

    async def scene(phone: Phone, app: App) -> None:
        await connect(phone)
        await phone.until_words("desk of Anna")
        await phone.tap("desk of Anna")
        assert field(phone, ADDRESS) == home.place
        await phone.type(CODE, link.code.lower())
        await phone.tap("Pair")
        await phone.until_words(link.check)
        assert is_open(home, link.code), "nothing is sent before the comparison"
        await phone.tap("Yes, the same")
        await paired(phone)
        assert home.access.code(link.code).state == "used"
        assert field(phone, ADDRESS) == field(phone, CODE) == ""
        assert "paired" in phone.words().splitlines(), "the listed server is marked as paired"

    with closing(Announcement(home.access.server, "desk of Anna", ["127.0.0.1"], home.site.port, {})):
        play(scene)


def test_a_wrong_check_code_pairs_nothing_and_sends_nothing(play: Play, home: Home) -> None:
    link = home.link()

    async def scene(phone: Phone, app: App) -> None:
        await connect(phone)
        await phone.type(ADDRESS, f"https://{home.place}")
        await phone.type(CODE, link.code)
        await phone.tap("Pair")
        await phone.until_words("somebody is in between")
        await phone.tap("Cancel")
        assert phone.all(ft.FilledTonalButton, content="Test") == []
        assert is_open(home, link.code)
        assert (field(phone, ADDRESS), field(phone, CODE)) == (f"https://{home.place}", link.code)

    play(scene)


def test_a_failed_pairing_is_reported_in_one_sentence_and_keeps_the_typed_text(play: Play, home: Home) -> None:
    with sockets.bind("127.0.0.1", 0) as bound:
        silent = f"127.0.0.1:{bound.getsockname()[1]}"

    async def scene(phone: Phone, app: App) -> None:
        await connect(phone)
        for address, code, sentence in (
            ("two words", "ABCD-2345", "two words is no address"),
            (home.place, "ABCD", "A code has 8 letters and digits"),
            (silent, "ABCD-2345", f"Nobody answers at {silent}"),
            ("impchat://pair?a=1.2.3.4", "", "not a pairing link"),
        ):
            await phone.type(ADDRESS, address)
            await phone.type(CODE, code)
            await phone.tap("Pair")
            await phone.until_words(sentence)
            assert (field(phone, ADDRESS), field(phone, CODE)) == (address, code)
        await phone.type(ADDRESS, home.place)
        await phone.type(CODE, "ABCD-2345")
        await phone.tap("Pair")
        await phone.until_words("Does the computer show the same check?")
        await phone.tap("Yes, the same")
        await phone.until_words("This code is not valid")
        assert (field(phone, ADDRESS), field(phone, CODE)) == (home.place, "ABCD-2345")

    play(scene)


def test_a_computer_without_tls_is_paired_only_after_a_warning(play: Play, tmp_path: Path) -> None:
    app = App.open(tmp_path / "computer")
    with closing(Access(tmp_path / "computer")) as access:
        site = Site(app, build_api(app, access=access, token_needed=True))
        code = access.offer()

        async def scene(phone: Phone, app: App) -> None:
            await connect(phone)
            await phone.type(ADDRESS, f"127.0.0.1:{site.port}")
            await phone.type(CODE, code)
            await phone.tap("Pair")
            await phone.until_words("everybody in the same network")
            assert access.code(code).state == "open"
            dialog = phone.one(ft.AlertDialog)
            await phone.fire(dialog.actions[1], "click")
            await paired(phone)

        play(scene)
        site.close()


def test_the_search_can_be_repeated(play: Play, home: Home) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await connect(phone)
        await phone.until_words("None found")
        late = await asyncio.to_thread(Announcement, home.access.server, "late desk", ["127.0.0.1"], home.site.port, {})
        await phone.tap("Search again")
        await phone.until_words("late desk")
        await asyncio.to_thread(late.close)

    play(scene)


# A link that opens the app


def test_a_scanned_link_opens_the_app_and_pairs_after_confirmation(play: Play, home: Home) -> None:
    link = home.link()

    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words(f"Pair with {home.place}?")
        assert field(phone, ADDRESS) == str(link)
        assert is_open(home, link.code), "a link may come from anybody"
        await phone.fire(phone.one(ft.AlertDialog).actions[1], "click")
        await paired(phone)

    play(scene, link=str(link))


def test_a_link_reaches_the_running_app_and_is_confirmed_once(play: Play, home: Home) -> None:
    first, second = home.link(), home.link()

    async def scene(phone: Phone, app: App) -> None:
        await phone.open_link(str(first))
        await phone.until_words(f"Pair with {home.place}?")
        await phone.tap("Cancel")
        views = len(phone.page.views)
        await phone.open_link(str(second))
        await phone.until(lambda: field(phone, ADDRESS) == str(second), "the other link")
        assert len(phone.page.views) == views, "no second screen is opened"
        await phone.fire(phone.all(ft.AlertDialog)[-1].actions[1], "click")
        await paired(phone)
        assert not is_open(home, first.code)

    play(scene)


def test_a_link_without_tls_gives_a_warning(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words("everybody in the same network")

    play(scene, link=str(Link(("192.168.1.5:7861",), "ABCD2345", "")))


@pytest.mark.parametrize("link", ["impchat://pair?a=&c=", "impchat://pair?x", "impchat://pair?a=%00&c=X&f=AA"])
def test_a_malformed_link_gives_one_sentence(play: Play, link: str) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words("This is not a pairing link of ImpChat")
        assert len(phone.page.views) == 1 and phone.all(ft.AlertDialog) == []

    play(scene, link=link)


async def enter(phone: Phone, pin: str) -> None:
    for digit in pin:
        key = next(
            b for b in phone.all(ft.FilledTonalButton) if isinstance(b.content, ft.Text) and b.content.value == digit
        )
        await phone.fire(key, "click")
    await phone.tap("Enter")


def test_a_link_waits_until_the_app_is_unlocked_at_the_start(play: Play, tmp_path: Path, home: Home) -> None:
    applock.set_pin(tmp_path, "1234")

    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words("Enter your PIN")
        assert phone.all(ft.AlertDialog) == []
        await enter(phone, "1234")
        await phone.until_words(f"Pair with {home.place}?")

    play(scene, link=str(home.link()))


@pytest.mark.parametrize("first", ["link", "sight"])
def test_a_link_waits_until_the_app_is_unlocked_in_any_order_of_events(
    play: Play, tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.setattr(settings, "LOCK_AFTER_S", -1)

    async def scene(phone: Phone, app: App) -> None:
        applock.set_pin(app.data, "1234")
        await phone.fire(phone.page, "app_lifecycle_state_change", {"state": "hide"})
        if first == "sight":
            await phone.fire(phone.page, "app_lifecycle_state_change", {"state": "show"})
        await phone.open_link(str(home.link()))
        if first == "link":
            await phone.fire(phone.page, "app_lifecycle_state_change", {"state": "show"})
        await phone.until_words("Enter your PIN")
        assert phone.all(ft.AlertDialog) == []
        await enter(phone, "1234")
        await phone.until_words(f"Pair with {home.place}?")
        assert len(phone.page.views) == 2

    play(scene)


def test_in_a_browser_no_link_asks_for_pairing(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        phone.session.apply_page_patch({"web": True})
        await phone.open_link("impchat://pair?a=192.168.1.5:7861&c=ABCD2345")
        await phone.tap("Chats")
        assert phone.all(ft.AlertDialog) == []

    play(scene)
