"""The chat screen in Chromium with a slow model: reading, answering, stopping, errors, and a low screen."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import FloatRect, Page

from impchat import preferences, settings
from impchat.app import App
from impchat.messages import Failed
from impchat.preferences import Preferences
from tests.core.slow import ANSWER, SlowEngine
from tests.mobile.browser.conftest import Open
from tests.mobile.conftest import drawing
from tests.mobile.hands import button, tap, wait_for, words, write

ME = settings.OWNER
HINT = "Ask about a picture"
SAID = ANSWER.replace("*", "")


def attach(page: Page, *pictures: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        tap(page, "Choose pictures")
    chooser.value.set_files(
        [
            {"name": f"{number}.png", "mimeType": "image/png", "buffer": data}
            for number, data in enumerate(pictures, 1)
        ]
    )  # fmt: skip


def typed(page: Page) -> str:
    return page.get_by_label(HINT).first.input_value()


def box(page: Page, selector: str) -> FloatRect:
    """The bounding box of an element when it has stopped moving."""
    before = None
    for _ in range(1200):
        found = page.locator(selector).first.bounding_box()
        if found and found == before:
            return found
        before = found
        page.wait_for_timeout(50)
    raise AssertionError(f"{selector} never came: {words(page)}")


def until(page: Page, true: Callable[[], object], what: str) -> None:
    """Wait for `true()`."""
    for _ in range(1200):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{what} never came: {words(page)}")


def questions(app: App) -> list[str]:
    return [
        message.text
        for chat in app.history.conversations(ME)
        for message in app.history.messages(chat.uuid, ME)
        if message.role == "user"
    ]


def test_a_slow_answer_is_followed_stopped_and_may_fail_and_nothing_typed_meanwhile_is_lost(phone: Open) -> None:
    engine = SlowEngine(reading_s=20.0, pauses_after_words=3)
    opened = phone(engine=engine)
    page, app = opened.page, opened.site.app
    assert button(page, "Send").get_attribute("aria-disabled") == "true", "there is nothing to send"

    attach(page, drawing("red"))
    wait_for(page, r"Reading the picture … [1-9]\d* %")
    write(page, HINT, "What is it?")
    tap(page, "Send")
    wait_for(page, r"(?m)^Reading \d+ %")
    assert "must be provided" not in words(page)
    tap(page, "Stop")
    wait_for(page, "Stopped here")
    engine.reading_s = 2.0

    seen = set()
    write(page, HINT, "And now?")
    tap(page, "Send")
    wait_for(page, "This picture shows")
    write(page, HINT, "Next")
    page.keyboard.press("Enter")  # neither stops the answer nor gets lost
    wait_for(page, "The answer is still being written")
    page.keyboard.type(" one")
    engine.words_per_s, engine.pauses_after_words = 4.0, -1
    while "tokens/s" not in (told := words(page)):
        assert "must be provided" not in told
        seen.add(told)
        page.wait_for_timeout(50)
    assert SAID in told
    assert len(seen) > 3, "it was seen growing"
    assert "still being written" not in told
    assert typed(page) == "Next one"

    engine.failure, engine.fails_after_words = Failed("engine.decode_failed", {}), 4
    for _ in range(3):  # of which one counts
        page.keyboard.press("Enter")
    wait_for(page, "could not read this prompt")
    assert "This picture shows a" in words(page), "what there was stays"
    assert typed(page) == ""
    engine.failure, engine.pauses_after_words = None, 5
    tap(page, "Answer again")
    button(page, "Stop").wait_for(state="attached")
    wait_for(page, "This picture shows a red")
    tap(page, "Stop")
    wait_for(page, "(?s)Stopped here.*Stopped here")
    assert "Version 2 of 2" in words(page)
    assert questions(app) == ["What is it?", "And now?", "Next one"]


def test_a_double_tap_on_send_asks_once_and_stops_nothing(phone: Open) -> None:
    opened = phone(engine=SlowEngine(words_per_s=20.0))
    page = opened.page
    write(page, HINT, "Hello")
    place = box(page, '[aria-label="Send"] [role=button], [role=button]:text-is("Send")')
    until(page, lambda: button(page, "Send").get_attribute("aria-disabled") is None, "an active button")
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.touchscreen.tap(x, y)
    page.touchscreen.tap(x, y)
    assert SAID in wait_for(page, "tokens/s")
    assert questions(opened.site.app) == ["Hello"]


def talked(app: App) -> None:
    """An open chat that is longer than the screen."""
    history = app.history
    chat = history.create_conversation(ME).uuid
    parent = None
    for number in range(8):
        question = history.add_question(chat, ME, parent=parent, text=f"Question {number}.")
        parent = history.start_answer(chat, ME, parent=question.uuid, model="other").uuid
        history.finish_answer(parent, text=f"Answer {number}.", state="done")
    preferences.save(app.data, Preferences(conversation=chat))


def test_the_last_answer_stays_in_sight_and_the_field_and_send_on_a_low_screen(phone: Open) -> None:
    page = phone(before=talked, engine=SlowEngine(reading_s=0.2)).page
    field, last = f'textarea[aria-label="{HINT}"]', '[aria-label$="Answer 7."]'
    send = '[aria-label="Send"] [role=button], [role=button]:text-is("Send")'
    wait_for(page, r"Answer 7\.")

    def answer_is_above(what: str) -> bool:
        above, below = page.locator(last).last.bounding_box(), page.locator(what).first.bounding_box()
        return bool(above and below) and above["y"] + above["height"] <= below["y"]

    write(page, HINT, "What is")
    attach(page, drawing("red"))
    wait_for(page, "Ready, ask anything")
    picture = '[aria-label="Picture 1 of 1 for the question"]'
    until(page, lambda: answer_is_above(picture), "the answer above the picture")

    page.set_viewport_size({"width": 915, "height": 412})
    until(page, lambda: box(page, send)["x"] > 600, "the other layout")
    assert "Search chats" not in words(page), "the chats are in the drawer"
    page.locator(field).first.tap(force=True)
    page.set_viewport_size({"width": 915, "height": 200})  # the keyboard is open
    for what in (field, send, picture):
        until(page, lambda what=what: box(page, what)["y"] + box(page, what)["height"] <= 200, what)
        assert box(page, what)["y"] >= 0
    page.keyboard.type(" it?")
    until(page, lambda: typed(page) == "What is it?", "the rest of the question")
    tap(page, "Send")
    wait_for(page, "What is it")


def strip(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(out, "PNG")
    return out.getvalue()


def test_a_tap_on_a_narrow_picture_shows_it_large_and_a_removed_one_comes_back(phone: Open) -> None:
    page = phone(engine=SlowEngine(reading_s=0.2)).page
    attach(page, strip(60, 400), strip(1, 20_000), strip(20_000, 1))
    wait_for(page, "Picture 3 of 3 for the question")
    for number in (1, 2, 3):
        name = f'[aria-label="Picture {number} of 3 for the question"]'
        small = box(page, name)
        assert min(small["width"], small["height"]) >= 24
        page.touchscreen.tap(small["x"] + small["width"] / 2, small["y"] + small["height"] / 2)
        wait_for(page, "Prepare the picture")
        large = '[role=img][aria-label^="Drag the corners"], [aria-label^="Drag the corners"]'
        until(page, lambda large=large: page.locator(large).count(), "the picture")
        assert min(box(page, large)["width"], box(page, large)["height"]) >= 24
        tap(page, "Back")
        wait_for(page, "Picture 3 of 3 for the question")
    remove = box(page, '[aria-label="Remove the picture"] [role=button], [role=button]:text-is("Remove the picture")')
    picture = box(page, '[aria-label="Picture 1 of 3 for the question"]')
    assert min(remove["width"], remove["height"]) >= 40
    assert remove["x"] >= picture["x"] + picture["width"], "beside the picture, not on it"
    tap(page, "Remove the picture")
    wait_for(page, "Picture 2 of 2 for the question")
    tap(page, "Undo")
    wait_for(page, "Picture 3 of 3 for the question")


def rich(app: App) -> None:
    history = app.history
    chat = history.create_conversation(ME).uuid
    question = history.add_question(chat, ME, parent=None, text="Go on.")
    answer = history.start_answer(chat, ME, parent=question.uuid, model="other").uuid
    quote = "> " + "A quote of many words. " * 12
    picture = "![one](http://192.0.2.1/a.png) `` ![two](http://192.0.2.1/b.png) `"
    text = f"{quote}\n\n- [ ] open\n- [x] done\n\n{picture}\n\nThe end."
    history.finish_answer(answer, text=text, state="done")
    preferences.save(app.data, Preferences(conversation=chat))


def test_in_the_dark_quotes_and_task_boxes_are_seen_and_no_picture_is_fetched(phone: Open) -> None:
    page = phone(dark=True, before=rich, engine=SlowEngine()).page  # the phone's own eyes see what is fetched
    wait_for(page, "The end")

    def colours() -> dict[tuple[int, int, int], int]:
        with Image.open(io.BytesIO(page.screenshot(clip={"x": 0, "y": 60, "width": 412, "height": 600}))) as shot:
            return {colour: count for count, colour in shot.convert("RGB").getcolors(412 * 600)}  # type: ignore[union-attr, misc]

    orange = (0xF5, 0x97, 0x6F)  # of the boxes, and of nothing else in this part of the screen but two links
    until(page, lambda: colours().get(orange, 0) > 100, "the task boxes")
    bright = sum(count for colour, count in colours().items() if max(colour) > 160)
    assert 0.005 < bright / (412 * 600) < 0.15, "words on a dark ground"
    assert not re.search("must be provided", words(page))
