"""The chat screen, without a browser: asking, stopping, changing one's mind, and what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import flet as ft

from impchat.app import App
from impchat_mobile.talk import Talk
from tests.mobile.conftest import Play, drawing, picked
from tests.mobile.fake import Phone

HINT = "Ask about a picture"


async def ask(phone: Phone, text: str) -> None:
    await phone.type(HINT, text)
    await phone.tap("Send")


async def answered(phone: Phone, count: int = 1) -> list[str]:
    """The finished answers, as soon as there are so many."""
    await phone.until(lambda: len(phone.all(ft.IconButton, tooltip="Copy")) >= count, "an answer")
    return [control.value for control in phone.all(ft.Markdown)]


def test_a_picked_picture_is_read_at_once_and_answered(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await ask(phone, "What colour is the circle?")
        assert "red" in (await answered(phone))[0].lower()
        assert phone.one(ft.TextField, label=HINT).value == ""
        assert "tokens/s" in phone.words()

    play(scene, {"pick_files": picked(drawing("red"))})


def test_a_chip_asks_its_question(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await phone.tap("What is in the picture?")
        assert "blue" in (await answered(phone))[0].lower()

    play(scene, {"pick_files": picked(drawing("blue"))})


def test_boxes_of_an_answer_are_drawn_on_its_picture(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "Give the bounding box of the circle.")
        await answered(phone)
        assert phone.all(ft.Image, semantics_label="The picture with the boxes of the answer")

    play(scene, {"pick_files": picked(drawing("red"))})


def test_boxes_are_drawn_while_the_answer_goes_on(tmp_path: Path) -> None:
    with App.open(tmp_path) as app:
        chat = app.chat()
        chat.attach(drawing("red"))
        answer = chat.send("Give the bounding box of the circle.").wait()
        talk = Talk(app, lambda: None)
        talk.messages = chat.branch()
        assert talk.boxed(replace(answer, state="streaming")), "as it was before the branch was read again"


def test_an_answer_can_be_had_again_and_both_versions_stay(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("Answer again")
        await phone.until_words("2 / 2")
        await phone.tap("Earlier version")
        await phone.until_words("1 / 2")

    play(scene)


def test_an_edited_question_is_answered_anew(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("Edit the question")
        assert phone.one(ft.TextField, label=HINT).value == "Hello"
        await ask(phone, "What colour is the circle?")
        await phone.until(lambda: "green" in phone.words().lower(), "the other answer")
        assert "2 / 2" in phone.words()

    play(scene, {"pick_files": picked(drawing("green"))})


def test_what_is_typed_outlives_the_app(play: Play) -> None:
    async def leave(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await phone.type(HINT, "What col")
        await phone.session.dispatch_event(phone.page._i, "app_lifecycle_state_change", {"state": "pause"})

    async def come_back(phone: Phone, app: App) -> None:
        assert phone.one(ft.TextField, label=HINT).value == "What col"
        await phone.until_words("Picture 1 of 1 for the question")

    play(leave, {"pick_files": picked(drawing())})
    play(come_back)


def test_a_file_that_is_no_picture_is_told_in_a_sentence_and_nothing_is_lost(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.type(HINT, "What is this?")
        await phone.tap("Choose pictures")
        await phone.until_words("not a picture that ImpChat knows")
        assert phone.one(ft.TextField, label=HINT).value == "What is this?"

    play(scene, {"pick_files": picked(b"no picture")})


def test_a_mistake_in_a_handler_leaves_the_page_as_it_is(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Something went wrong in ImpChat (RuntimeError)")
        await ask(phone, "Hello")
        assert await answered(phone)

    play(scene, {"pick_files": OSError("the platform's picker broke")})


def test_what_the_platform_cannot_share_is_copied(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        text = (await answered(phone))[0]
        await phone.tap("Share")
        assert ("set", {"data": text}) in phone.connection.calls or any(
            name == "set" and text in str(args) for name, args in phone.connection.calls
        )

    play(scene, {"share_text": OSError("nothing to share with")})


def test_the_app_speaks_chinese(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("选择图片")
        await phone.until_words("读完了，请提问")
        await phone.type("就图片提问", "圆形是什么颜色？")
        await phone.tap("发送")
        await phone.until(lambda: any("红" in m.value for m in phone.all(ft.Markdown)), "the answer")

    play(scene, {"pick_files": picked(drawing("red"))}, language="zh")
