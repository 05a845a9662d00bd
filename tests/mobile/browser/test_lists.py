"""Lists, sheets and navigation in Chromium: taps have their effect, and back returns to the screen before."""

from __future__ import annotations

from playwright.sync_api import Page

from impchat import settings
from impchat.app import App
from tests.mobile.browser.conftest import Open
from tests.mobile.hands import button, go_back, tap, touch, wait_for, words, write

ME = settings.OWNER
WELCOME = "Take a photo or choose a picture"


def many_chats(app: App) -> None:
    for number in range(500):
        app.history.create_conversation(ME, f"chat {number:03}")


def on_screen(page: Page, label: str) -> bool:
    box = button(page, label).bounding_box()
    return bool(box) and 0 <= box["y"] <= 915 - box["height"]


def test_500_chats_hide_no_way_are_scrolled_to_their_end_and_a_deletion_is_taken_back_in_the_list(
    phone: Open,
) -> None:
    opened = phone(before=many_chats)
    page, history = opened.page, opened.site.app.history
    tap(page, "Chats")
    button(page, "More: chat 499").wait_for(state="attached")
    for place in ("Photo library", "Models", "My computer", "Settings"):
        assert on_screen(page, place)
    page.mouse.move(150, 400)
    while "chat 000" not in words(page):
        page.mouse.wheel(0, 3000)
        page.wait_for_timeout(50)

    write(page, "Search chats", "chat 123")
    button(page, "More: chat 499").wait_for(state="detached")
    tap(page, "More: chat 123")
    tap(page, "Delete")
    wait_for(page, "Deleted: chat 123")
    assert on_screen(page, "Undo")
    assert len(history.conversations(ME, deleted=True)) == 1
    tap(page, "Undo")
    button(page, "More: chat 123").wait_for(state="attached")
    assert history.conversations(ME, deleted=True) == []


def test_no_sheet_is_open_again_after_the_screen_that_it_led_to(phone: Open) -> None:
    page = phone().page
    assert not page.evaluate("crossOriginIsolated"), "Flutter draws in several threads, which hangs now and then"
    for opener, way, there in (
        ("More", "Settings", "Appearance"),
        ("On this computer", "Models", "The Imp family"),
        ("More ways to begin", "Photo library", "Pictures you ask about"),
        ("More", "Settings", "Appearance"),
    ):
        if opener == "On this computer":  # the chat's title, which names no button
            touch(page.get_by_text(opener).first)
        else:
            tap(page, opener)
        tap(page, way)
        wait_for(page, there)
        tap(page, "Back")
        wait_for(page, WELCOME)
        assert not button(page, way).is_visible(), f"the sheet of {opener} is open again"


def test_the_browsers_back_leads_from_a_screen_to_the_chat_and_closes_a_sheet(phone: Open) -> None:
    page = phone().page
    for _ in range(2):
        tap(page, "More")
        tap(page, "Settings")
        wait_for(page, "Appearance")
        page.mouse.move(200, 500)
        while "Speed test" not in words(page):
            page.mouse.wheel(0, 600)
            page.wait_for_timeout(50)
        touch(page.get_by_text("Speed test").first)
        button(page, "Measure").wait_for(state="attached")
        go_back(page)
        wait_for(page, "Four figures")
        go_back(page)
        wait_for(page, WELCOME)
    tap(page, "More")
    button(page, "Settings").wait_for(state="attached")
    go_back(page)
    button(page, "Settings").wait_for(state="detached")
    wait_for(page, WELCOME)
