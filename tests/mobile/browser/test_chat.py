"""The chat in Chromium, in a phone's size: adding pictures, growing answers, and finding everything after a restart."""

from __future__ import annotations

from contextlib import suppress

from playwright.sync_api import Error, Page

from impchat import preferences, settings
from impchat.app import App
from impchat.preferences import Preferences
from tests.core.scripted import ScriptedEngine
from tests.mobile.browser.conftest import Camera, Open
from tests.mobile.conftest import drawing
from tests.mobile.hands import RESTS, button, nameless, tap, wait_for, words, write

ME = settings.OWNER
HINT = "Ask about a picture"


def attach(page: Page, label: str, data: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        tap(page, label)
    chooser.value.set_files({"name": "picture.png", "mimeType": "image/png", "buffer": data})


def photograph(page: Page, camera: str, shutter: str) -> None:
    tap(page, camera)
    button(page, shutter).wait_for(state="attached")
    preview = page.locator("video")
    while not preview.evaluate("film => film.currentTime > 0.2"):  # before that there is nothing to photograph
        page.wait_for_timeout(50)
    tap(page, shutter)


def test_a_first_launch_answers_about_a_picked_picture_and_the_next_one_goes_on(phone: Open) -> None:
    opened = phone()
    page = opened.page
    assert "Imp demo" in words(page)
    assert nameless(page) == []
    attach(page, "Choose pictures", drawing("red"))
    wait_for(page, "Ready, ask anything")
    write(page, HINT, "What colour is the circle?")
    tap(page, "Send")
    assert "red" in wait_for(page, "tokens/s").lower()
    assert nameless(page) == []
    opened.boot()  # a page that is loaded anew
    assert "red" in wait_for(page, "tokens/s").lower()
    opened.restart()
    assert "red" in wait_for(page, "tokens/s").lower()
    tap(page, "Chats")
    wait_for(page, "Today")


def test_in_chinese_and_in_the_dark_a_photographed_picture_is_answered(phone: Open, camera: Camera) -> None:
    camera.films(drawing("red"))
    page = phone("zh", dark=True).page
    photograph(page, "拍照", "按下快门")
    wait_for(page, "读完了，请提问")
    write(page, "就图片提问", "What colour is the circle?")
    tap(page, "发送")
    assert "red" in wait_for(page, "个词元").lower()


def long_chat(app: App) -> None:
    """A chat of 500 messages, which is opened at the next start."""
    history = app.history
    chat = history.create_conversation(ME).uuid
    parent = None
    for number in range(250):
        question = history.add_question(chat, ME, parent=parent, text=f"Question {number}.")
        parent = history.start_answer(chat, ME, parent=question.uuid, model="other").uuid
        history.finish_answer(parent, text=f"Answer {number}.", state="done")
    preferences.save(app.data, Preferences(conversation=chat))


def test_500_messages_are_scrolled_to_their_beginning_and_back(phone: Open) -> None:
    page = phone(before=long_chat).page
    wait_for(page, r"Answer 249\.")
    page.mouse.move(200, 400)
    while "Question 1." not in words(page):
        page.mouse.wheel(0, -3000)
        page.wait_for_timeout(200)
        earlier = button(page, "Show 400 earlier messages")
        with suppress(Error):  # just after the start the list may go back to its end
            if earlier.is_visible() and earlier.evaluate(RESTS):
                earlier.tap(force=True, timeout=1000)
    page.mouse.wheel(0, 1200)
    wait_for(page, r"Answer 8\.")
    tap(page, "To the latest words")
    wait_for(page, r"Answer 249\.")


def test_nothing_typed_is_lost_while_an_answer_grows_and_the_phone_is_turned(phone: Open) -> None:
    engine = ScriptedEngine()
    opened = phone(before=long_chat, engine=engine)
    page = opened.page
    wait_for(page, r"Answer 249\.")
    write(page, HINT, "Tell me more")
    tap(page, "Send")
    script = engine.next()
    text = "The quick brown fox jumps over the lazy dog"
    write(page, HINT, "")
    for number, letter in enumerate(text):
        script.say(f"word{number} ")
        page.keyboard.type(letter, delay=20)
    page.set_viewport_size({"width": 915, "height": 412})
    page.wait_for_timeout(300)
    field = page.get_by_label(HINT).first
    assert field.input_value() == text
    page.set_viewport_size({"width": 412, "height": 915})
    script.finish("and the end.")
    told = wait_for(page, "and the end")
    assert all(f"word{number} " in told for number in range(len(text)))
    assert field.input_value() == text
    tap(page, "Send")  # what was typed is what is sent
    engine.next().finish("Yes.")
    wait_for(page, r"Yes\.")
    [chat] = opened.site.app.history.conversations(ME)
    assert text in [message.text for message in opened.site.app.history.messages(chat.uuid, ME)]
