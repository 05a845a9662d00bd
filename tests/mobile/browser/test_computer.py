"""A phone in Chromium and a real ImpChat server over TLS: pairing by a typed code and by a QR code, models and
answers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import segno
from playwright.sync_api import Page

from impchat.models import copying
from impchat.peers.pairing import Link
from tests.core.scripted import ScriptedEngine
from tests.mobile.browser.conftest import Camera, Open
from tests.mobile.browser.test_chat import HINT, attach, photograph
from tests.mobile.browser.wire import Wire
from tests.mobile.conftest import drawing
from tests.mobile.hands import button, finger_on, tap, touch, wait_for, write
from tests.mobile.test_computer import OTHER, home
from tests.serve.test_pairing import Home

__all__ = ["home"]


@pytest.fixture
def wire(home: Home) -> Iterator[Wire]:
    with closing(Wire(home.site.port)) as opened:
        yield opened


def through(wire: Wire, home: Home) -> Link:
    """A pairing link whose address is the wire's."""
    return replace(home.link(), places=(wire.place,))


def open_from_drawer(page: Page, name: str) -> None:
    tap(page, "Chats")
    tap(page, name)


def answer_by(page: Page, model: str) -> None:
    """Choose the computer with this model for the answers of the open chat."""
    touch(page.get_by_text("On this computer · ").first)
    touch(page.get_by_role("button", name=re.compile(rf"^On (?!this ).*{model}")).first)
    button(page, "Choose pictures").wait_for(state="attached")  # it has gone


def test_paired_by_a_typed_code_a_model_comes_in_two_goes_over_a_restart_and_answers(
    home: Home, wire: Wire, phone: Open
) -> None:
    opened = phone()
    page, link = opened.page, through(wire, home)
    open_from_drawer(page, "My computer")
    write(page, "Address or pairing link", wire.place)
    write(page, "Code", link.code)
    tap(page, "Pair")
    wait_for(page, link.check)
    tap(page, "Yes, the same")
    wait_for(page, "Paired with")

    tap(page, "Back")
    open_from_drawer(page, "Models")
    wait_for(page, "Other demo")
    tap(page, "Download")
    button(page, "Accept").wait_for(state="attached")
    wire.cut(after=2_000_000)
    tap(page, "Accept")
    wait_for(page, "Resume")
    [half] = copying.unfinished(opened.site.app.data)
    assert 1_000_000 < half.done < half.total

    wire.mend()
    opened.restart()
    open_from_drawer(page, "Models")
    wait_for(page, "Resume")
    before = wire.down
    with finger_on(page, button(page, "Resume")):
        wait_for(page, "There are no others")  # the computer has said what it has, and the list was drawn again
    wait_for(page, "Use it")
    assert wire.down - before < half.total - half.done + 100_000, "only what was missing is fetched"
    tap(page, "Use it")
    wait_for(page, r"Other demo\s+runs now")
    assert opened.site.app.model == OTHER
    tap(page, "Back")
    attach(page, "Choose pictures", drawing("blue"))
    wait_for(page, "Ready, ask anything")
    write(page, HINT, "What colour is the circle?")
    tap(page, "Send")
    assert "blue" in wait_for(page, "tokens/s").lower()


def test_paired_by_its_qr_code_the_computer_answers_a_chat(home: Home, camera: Camera, phone: Open) -> None:
    code = io.BytesIO()
    segno.make(str(home.link())).save(code, kind="png", scale=5, border=4)
    camera.films(code.getvalue())
    opened = phone(dark=True)
    page = opened.page
    open_from_drawer(page, "My computer")
    photograph(page, "Scan the QR code", "Take the photo")
    wait_for(page, "Paired with")
    tap(page, "Test")
    wait_for(page, "sees pictures")
    tap(page, "Back")
    answer_by(page, "imp-demo-196")
    attach(page, "Choose pictures", drawing("red"))
    wait_for(page, "Ready, ask anything")
    write(page, HINT, "What colour is the circle?")
    tap(page, "Send")
    assert "red" in wait_for(page, "tokens/s").lower()
    assert not opened.site.app.loaded, "the phone's own model was not needed"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Home, Wire, ScriptedEngine]]:
    """A computer with a scripted engine, and the wire to it."""
    engine = ScriptedEngine()
    with closing(Home(tmp_path / "computer", engine)) as home, closing(Wire(home.site.port)) as wire:
        yield home, wire, engine


def test_a_computer_lost_in_the_middle_of_an_answer_loses_no_word(
    told: tuple[Home, Wire, ScriptedEngine], phone: Open
) -> None:
    home, wire, engine = told
    page = phone().page
    open_from_drawer(page, "My computer")
    write(page, "Address or pairing link", str(through(wire, home)))
    tap(page, "Pair")
    wait_for(page, "Paired with")
    tap(page, "Back")
    answer_by(page, "scripted-1")
    write(page, HINT, "Tell me a story")
    tap(page, "Send")
    engine.next().say("Once upon a time ")
    wait_for(page, "Once upon a time")
    wire.cut()
    words = wait_for(page, "in the middle of the answer")
    assert "Once upon a time" in words
    wire.mend()
    tap(page, "Answer again")
    engine.next().finish("there was a fox.")
    wait_for(page, "there was a fox")
