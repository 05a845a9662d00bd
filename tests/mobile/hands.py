"""Actions of a user in the app. Flutter draws on a canvas, so they use its tree for screen readers (semantics)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from playwright.sync_api import Locator, Page, TimeoutError

from tests.mobile.site import SECONDS

# Whether an element keeps its place over six frames. Flutter draws a frame of a movement whenever the browser does.
RESTS = """async node => {
    const place = () => {
        const { x, y, width, height } = node.getBoundingClientRect()
        return [x, y, width, height].join()
    }
    const first = place()
    for (let frame = 0; frame < 6; frame++) {
        await new Promise(requestAnimationFrame)
        if (!node.isConnected || place() !== first) return false
    }
    return true
}"""


def boot(page: Page, address: str, control: str) -> None:
    """Open the app and enable its tree for screen readers; returns when `control` is there."""
    page.goto(address)
    page.locator("#loading").wait_for(state="detached")
    page.evaluate("document.querySelector('flt-semantics-placeholder')?.click()")
    find(page, control).wait_for(state="attached")


def find(page: Page, label: str) -> Locator:
    """The element with this name for screen readers."""
    return page.locator(f'[aria-label="{label}"]').first


def button(page: Page, label: str) -> Locator:
    """A button by its name; Flutter puts the name of a button with a tooltip on its parent node."""
    named = page.get_by_role("button", name=label, exact=True)
    return (
        named.or_(page.locator(f'[aria-label="{label}"] [role=button]'))
        .or_(page.locator(f'[role=button][aria-label="{label}"]'))
        .first
    )


def tap(page: Page, label: str) -> None:
    """Tap a button when it can be tapped."""
    touch(button(page, label).and_(page.locator(":not([aria-disabled=true])")))


def touch(found: Locator) -> None:
    """Tap `found` when it has stopped moving; a moving element could be missed."""
    rest(found)
    found.tap(force=True)


def rest(found: Locator) -> None:
    """Wait until `found` is there and has stopped moving."""
    while not found.evaluate(RESTS):
        continue


def write(page: Page, label: str, text: str) -> None:
    """Tap a field and append `text`; returns when the field shows it."""
    field = page.get_by_label(label, exact=True).first
    focused = page.locator("textarea:focus, input:focus")
    end = time.monotonic() + SECONDS
    touch(field)
    while not focused.count():
        assert time.monotonic() < end, f"{label} never takes the keys"
        with suppress(TimeoutError):
            focused.wait_for(state="attached", timeout=2000)
            break
        touch(field)  # Flutter may show the caret and leave the focus elsewhere: then another tap is needed
    page.wait_for_timeout(
        150
    )  # Flutter gives the field what the app knows, and takes the keys, a moment after the focus
    page.keyboard.type(text)
    page.wait_for_timeout(150)  # if Flutter missed a key, it has put its own text back by now
    while not focused.first.input_value().endswith(text):
        assert time.monotonic() < end, f"{label} does not keep what is typed"
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
        page.wait_for_timeout(150)


@contextmanager
def finger_on(page: Page, found: Locator) -> Iterator[None]:
    """Hold a finger on `found` during the block."""
    rest(found)
    box = found.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()  # Chromium takes a touch that is held for a wish of its own
    yield
    page.mouse.up()


def go_back(page: Page) -> None:
    """Press the browser's back button. Playwright's own go_back waits for a page load, and there is none."""
    page.evaluate("history.back()")


def words(page: Page) -> str:
    """All text on the screen."""
    return str(
        page.evaluate(
            "[...document.querySelectorAll('flt-semantics-host, flt-semantics-host [aria-label]')]"
            ".map(n => n.getAttribute('aria-label') || n.innerText).join('\\n')"
        )
    )


def wait_for(page: Page, pattern: str, seconds: float = SECONDS) -> str:
    """Wait until `pattern` occurs in the text on the screen; return that text."""
    end = time.monotonic() + seconds
    while not re.search(pattern, found := words(page)):
        assert time.monotonic() < end, f"{pattern} is not in: {found}"
        page.wait_for_timeout(50)  # the page's policy forbids the eval that Playwright's own waiting needs
    return found


def nameless(page: Page) -> list[str]:
    """The buttons without a name for screen readers."""
    found: list[str] = page.evaluate(
        "[...document.querySelectorAll('flt-semantics-host [role=button]')]"
        ".filter(n => !n.getAttribute('aria-label') && !n.innerText.trim() && !n.querySelector('[aria-label]'))"
        ".map(n => n.outerHTML)"
    )
    return found
