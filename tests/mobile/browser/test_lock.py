"""The app lock in Chromium: it hides everything, and only the PIN opens it."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.mobile.browser.conftest import Open
from tests.mobile.browser.test_computer import open_from_drawer
from tests.mobile.hands import tap, touch, wait_for, words


def press(page: Page, pin: str) -> None:
    for digit in pin:
        tap(page, digit)
    tap(page, "Enter")


def test_a_pin_is_set_keeps_people_out_over_a_restart_and_lets_its_owner_in(phone: Open) -> None:
    opened = phone()
    page = opened.page
    open_from_drawer(page, "Settings")
    switch = page.get_by_role("switch", name="App lock")
    switch.wait_for(state="attached")
    while not switch.is_visible():  # it is below the edge
        page.mouse.wheel(0, 300)
        page.wait_for_timeout(100)
    touch(switch)
    wait_for(page, "Choose a PIN")
    press(page, "2580")
    wait_for(page, "The same again")
    press(page, "2580")
    wait_for(page, "The lock is on")
    opened.restart(control="Enter")
    assert "Ask about a picture" not in words(page)
    press(page, "1111")
    wait_for(page, "That is not the PIN")
    assert "Ask about a picture" not in words(page)
    press(page, "2580")
    wait_for(page, "Ask about a picture")
