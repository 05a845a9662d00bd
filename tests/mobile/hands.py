"""What a person's fingers do in the app: Flutter draws on a canvas; what is touched is its tree for screen readers."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Locator, Page

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
    field.tap(force=True)
    page.locator("textarea:focus, input:focus").wait_for(state="attached")
    page.wait_for_timeout(150)  # Flutter takes the keys a moment later
    page.keyboard.type(text, delay=delay)


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
