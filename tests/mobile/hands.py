"""What a person's fingers do in the app: Flutter draws on a canvas; what is touched is its tree for screen readers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Locator, Page, TimeoutError

from tests.mobile.site import SECONDS


def boot(page: Page, address: str, control: str) -> None:
    """Open the app and switch its tree for screen readers on; returns when `control` is there."""
    page.goto(address)
    page.locator("#loading").wait_for(state="detached")
    page.evaluate("document.querySelector('flt-semantics-placeholder')?.click()")
    find(page, control).wait_for(state="attached")


def find(page: Page, label: str) -> Locator:
    """Whatever carries this name for screen readers."""
    return page.locator(f'[aria-label="{label}"]').first


def button(page: Page, label: str) -> Locator:
    """A button by its name; Flutter puts the name of one with a tooltip on the node above it."""
    named = page.get_by_role("button", name=label, exact=True)
    return (
        named.or_(page.locator(f'[aria-label="{label}"] [role=button]'))
        .or_(page.locator(f'[role=button][aria-label="{label}"]'))
        .first
    )


def tap(page: Page, label: str) -> None:
    """Tap a button, as soon as it can be tapped."""
    button(page, label).and_(page.locator(":not([aria-disabled=true])")).tap(force=True)


def write(page: Page, label: str, text: str, delay: float = 0) -> None:
    field = page.get_by_label(label, exact=True).first
    focused = page.locator("textarea:focus, input:focus")
    end = time.monotonic() + SECONDS
    field.tap(force=True)
    while not focused.count():
        assert time.monotonic() < end, f"{label} never takes the keys"
        with suppress(TimeoutError):
            focused.wait_for(state="attached", timeout=2000)
            break
        field.tap(force=True)  # Flutter may show the caret and leave the focus elsewhere: then another tap is needed
    page.wait_for_timeout(150)  # Flutter takes the keys a moment later
    page.keyboard.type(text, delay=delay)


@contextmanager
def finger_on(page: Page, found: Locator) -> Iterator[None]:
    """A finger that is put on something before what happens in the block, and lifted after it."""
    found.wait_for(state="attached")
    box = found.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()  # Chromium takes a touch that is held for a wish of its own
    yield
    page.mouse.up()


def go_back(page: Page) -> None:
    """The browser's own button. Playwright's waits for a page that loads, and none does."""
    page.evaluate("history.back()")


def words(page: Page) -> str:
    """All that is to be read on the screen."""
    return str(
        page.evaluate(
            "[...document.querySelectorAll('flt-semantics-host, flt-semantics-host [aria-label]')]"
            ".map(n => n.getAttribute('aria-label') || n.innerText).join('\\n')"
        )
    )


def wait_for(page: Page, pattern: str, seconds: float = SECONDS) -> str:
    """The words on the screen, as soon as `pattern` is among them."""
    end = time.monotonic() + seconds
    while not re.search(pattern, found := words(page)):
        assert time.monotonic() < end, f"{pattern} is not in: {found}"
        page.wait_for_timeout(50)  # the page's policy forbids the eval that Playwright's own waiting needs
    return found


def nameless(page: Page) -> list[str]:
    """The buttons that say nothing to a screen reader."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('flt-semantics-host [role=button]')]"
        ".filter(n => !n.getAttribute('aria-label') && !n.innerText.trim() && !n.querySelector('[aria-label]'))"
        ".map(n => n.outerHTML)"
    )
    return found
