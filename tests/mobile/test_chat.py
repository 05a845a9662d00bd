"""The chat screen without a browser: questions, stops, edits, and errors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import flet as ft

from impchat import preferences, settings
from impchat.app import App
from impchat.messages import Message
from impchat.preferences import Preferences
from impchat_mobile import launch
from impchat_mobile.conversation import OpenConversation
from tests.core.scripted import ScriptedEngine
from tests.core.slow import ANSWER, SlowEngine
from tests.mobile.conftest import Play, drawing, picked
from tests.mobile.fake import Phone

HINT = "Ask about a picture"
ME = settings.OWNER


def asked(app: App) -> list[Message]:
    """All questions of the only chat, oldest first."""
    [chat] = app.history.conversations(ME)
    return [message for message in app.history.messages(chat.uuid, ME) if message.role == "user"]


def draft(phone: Phone) -> str:
    return phone.one(ft.TextField, label=HINT).value


async def ask(phone: Phone, text: str) -> None:
    await phone.type(HINT, text)
    await phone.tap("Send")


async def answered(phone: Phone, count: int = 1) -> list[str]:
    """Wait until there are `count` finished answers, and return them."""
    await phone.until(lambda: len(phone.all(ft.IconButton, tooltip="Copy")) >= count, "an answer")
    return [control.value for control in phone.all(ft.Markdown)]


def test_a_picked_picture_is_processed_at_once_and_answered(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await ask(phone, "What colour is the circle?")
        assert "red" in (await answered(phone))[0].lower()
        assert phone.one(ft.TextField, label=HINT).value == ""
        assert "tokens/s" in phone.words()

    play(scene, {"pick_files": picked(drawing("red"))})


def test_a_suggestion_sends_its_question(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Ready, ask anything")
        await phone.tap("What is in the picture?")
        assert "blue" in (await answered(phone))[0].lower()

    play(scene, {"pick_files": picked(drawing("blue"))})


def test_samples_are_those_that_the_demo_knows_and_bring_questions_that_fit(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.until_words("Sample picture 3")
        assert "Sample picture 4" not in phone.words()
        await phone.tap("Sample picture 1")
        await phone.until_words("Where is the heart?")
        await phone.tap("Give the bounding box of the heart.")
        await answered(phone)
        assert phone.all(ft.Image, semantics_label="The picture with the boxes of the answer")
        await phone.tap("More ways to begin")
        await phone.until_words("Sample picture 3")
        assert "Sample picture 4" not in phone.words()

    play(scene)


def test_boxes_of_an_answer_are_drawn_on_its_picture(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await ask(phone, "Give the bounding box of the circle.")
        await answered(phone)
        assert phone.all(ft.Image, semantics_label="The picture with the boxes of the answer")

    play(scene, {"pick_files": picked(drawing("red"))})


def test_boxes_are_drawn_while_the_answer_grows(tmp_path: Path) -> None:
    with App.open(tmp_path) as app:
        chat = app.chat()
        chat.attach(drawing("red"))
        answer = chat.send("Give the bounding box of the circle.").wait()
        talk = OpenConversation(app, lambda: None)
        talk.messages = chat.branch()
        assert talk.boxed(replace(answer, state="streaming")), "as it was before the branch was read again"


def test_an_answer_can_be_regenerated_and_both_versions_stay(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.tap("Answer again")
        await phone.until_words("2 / 2")
        await phone.tap("Earlier version")
        await phone.until_words("1 / 2")

    play(scene)


def test_of_several_picked_files_the_pictures_are_added_and_the_others_named(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Picture 2 of 2 for the question")
        assert "2.png, 4.png: This file is not a picture that ImpChat knows" in phone.words()
        assert not phone.all(ft.SnackBar), "it would cover the question"
        await ask(phone, "Hello")
        await answered(phone)
        assert len(asked(app)[0].images) == 2

    play(scene, {"pick_files": picked(drawing("red"), b"broken", drawing("blue"), b"broken too")})


def test_words_are_read_as_they_are_typed_unless_it_is_switched_off(play: Play) -> None:
    engine = ScriptedEngine()

    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "First")
        engine.next().finish("Yes.")
        await phone.until_words("Yes.")
        for text in ("What", "What ", "What colour "):
            await phone.type(HINT, text)
        await phone.until(lambda: engine.typed == ["What", "What colour"], "the words")
        await phone.tap("More")
        await phone.tap("Settings")
        switch = phone.one(ft.Switch, label="Read while I type")
        assert switch.value
        phone.session.apply_patch(switch._i, {"value": False})
        await phone.fire(switch, "change")
        assert not app.reads_typed
        assert not preferences.load(app.data).reads_typed

    play(scene, engine=engine)


def test_a_removed_picture_comes_back_to_its_place(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        def pictures() -> tuple[str, ...]:
            return app.history.conversations(ME)[0].draft_images

        await phone.tap("Choose pictures")
        await phone.until_words("Picture 2 of 2 for the question")
        before = pictures()
        await phone.tap("Remove the picture")
        await phone.until_words("The picture was removed")
        assert pictures() == before[1:]
        await phone.tap("Undo")
        await phone.until_words("Picture 2 of 2 for the question")
        assert pictures() == before

    play(scene, {"pick_files": picked(drawing("red"), drawing("blue"))})


def test_an_edited_question_has_its_own_pictures_and_the_draft_is_kept(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        picks = phone.connection.answers
        picks["pick_files"] = picked(drawing("red"), drawing("blue"))
        await phone.tap("Choose pictures")
        await ask(phone, "Which shapes?")
        await answered(phone)
        picks["pick_files"] = picked(drawing("green"))
        await phone.tap("Choose pictures")
        await phone.type(HINT, "Half a quest")
        await phone.until_words("Picture 1 of 1 for the question")

        for ends in ("Cancel", "Send"):
            await phone.tap("Edit the question")
            await phone.until_words("Picture 2 of 2 for the question")
            assert draft(phone) == "Which shapes?"
            await phone.tap("Remove the picture")
            await phone.until_words("Picture 1 of 1 for the question")
            picks["pick_files"] = picked(drawing("yellow"))
            await phone.tap("Choose pictures")
            await phone.until_words("Picture 2 of 2 for the question")
            await phone.type(HINT, "Which colours?")
            await phone.tap(ends)
            await phone.until(lambda: draft(phone) == "Half a quest", "the draft")
            await phone.until(lambda: "Editing an earlier question" not in phone.words(), "the end of the edit")
            await phone.until_words("Picture 1 of 1 for the question")
            assert "The picture was removed" not in phone.words(), "its undo would add it to the draft"
        await answered(phone)
        before, after = asked(app)
        assert (before.text, after.text) == ("Which shapes?", "Which colours?")
        assert before.images[1] == after.images[0]
        assert before.images[0] not in after.images
        [row] = app.history.conversations(ME)
        assert (row.draft, len(row.draft_images)) == ("Half a quest", 1)

    play(scene)


def test_an_edit_continues_after_a_visit_to_another_chat(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello there")
        await answered(phone)
        await phone.tap("Edit the question")
        await phone.type(HINT, "Hello you")
        await phone.tap("New chat")
        await phone.type(HINT, "Something else")
        await phone.tap("Chats")
        await phone.tap("Hello there")
        await phone.until_words("Editing an earlier question")
        assert draft(phone) == "Hello you"
        await phone.tap("Cancel")
        assert draft(phone) == ""

    play(scene)


def test_repeated_taps_on_send_send_a_question_once(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        button = phone.one(ft.IconButton, tooltip="Send")
        assert button.disabled, "there is nothing to send"
        await phone.type(HINT, "Hello")
        field = phone.one(ft.TextField, label=HINT)
        await asyncio.gather(*(phone.fire(field, "submit") for _ in range(3)), phone.fire(button, "click"))
        await phone.fire(button, "click")
        assert (await answered(phone))[0] == ANSWER
        assert [question.text for question in asked(app)] == ["Hello"]
        assert button.disabled
        for _ in range(2):
            await phone.fire(field, "submit")
        assert "There is nothing to answer" not in phone.words()

    play(scene, engine=SlowEngine(words_per_s=100.0))


def test_a_question_that_cannot_be_sent_stays_in_the_field_with_the_reason(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        text = "x" * (settings.QUESTION_CHARS + 1)
        await ask(phone, text)
        await phone.until_words("make it shorter")
        assert not phone.all(ft.SnackBar)
        assert draft(phone) == text
        await phone.until_words("Picture 1 of 1 for the question")
        await ask(phone, "Hello")
        await answered(phone)
        assert "make it shorter" not in phone.words()

    play(scene, {"pick_files": picked(drawing())})


def test_an_answer_continues_in_its_chat_while_another_one_is_open(play: Play) -> None:
    engine = ScriptedEngine()

    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Tell me a story")
        script = engine.next()
        script.say("Once upon ")
        await phone.until_words("Once upon")
        await phone.tap("New chat")
        await phone.type(HINT, "Something")
        script.say("a time")
        await phone.tap("Chats")
        assert "Once upon" not in phone.words()
        assert not phone.all(ft.IconButton, tooltip="Stop")
        await phone.tap("Tell me a story")
        await phone.until_words("Once upon a time")
        assert draft(phone) == ""
        script.finish(", and **so** on.")
        assert (await answered(phone))[0] == "Once upon a time, and **so** on."
        await phone.tap("Copy")
        assert "Once upon a time, and **so** on." in str(phone.connection.calls), "as Markdown"

    play(scene, engine=engine)


def test_an_edited_question_gets_a_new_answer(play: Play) -> None:
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


def test_typed_text_survives_a_restart_of_the_app(play: Play) -> None:
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


def test_a_question_during_the_start_goes_to_the_chat_that_is_opened(tmp_path: Path) -> None:
    async def whole() -> None:
        app = App.open(tmp_path, engine=SlowEngine(words_per_s=100.0))
        chat = app.history.create_conversation(ME).uuid
        question = app.history.add_question(chat, ME, parent=None, text="Yesterday's question")
        answer = app.history.start_answer(chat, ME, parent=question.uuid, model="other")
        app.history.finish_answer(answer.uuid, text="Yesterday's answer", state="done")
        preferences.save(app.data, Preferences(conversation=chat))
        phone = Phone()
        starting = asyncio.ensure_future(launch.start(phone.page, lambda: app, "en"))
        try:
            while not (starting.done() or (phone.page.views and phone.all(ft.TextField, label=HINT))):
                await asyncio.sleep(0)
            assert "Sample picture 1" not in phone.words(), "it does not look like a new chat"
            await ask(phone, "Hello")
            await starting
            await answered(phone, 2)
            assert [question.text for question in asked(app)] == ["Yesterday's question", "Hello"]
            assert draft(phone) == ""
        finally:
            await phone.session.dispatch_event(phone.page._i, "disconnect", None)
            phone.connection.dispose()
            await asyncio.to_thread(app.close)

    asyncio.run(whole())


def test_typed_text_is_kept_when_the_connection_returns(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        await answered(phone)
        await phone.type(HINT, "Half a quest")
        await phone.session.dispatch_event(phone.page._i, "disconnect", None)
        await phone.type(HINT, "Half a question")
        await phone.fire(phone.page, "connect")
        assert draft(phone) == "Half a question"

    play(scene, engine=SlowEngine(words_per_s=100.0))


def test_a_file_that_is_no_picture_is_reported_in_a_sentence_and_nothing_is_lost(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.type(HINT, "What is this?")
        await phone.tap("Choose pictures")
        await phone.until_words("not a picture that ImpChat knows")
        assert phone.one(ft.TextField, label=HINT).value == "What is this?"

    play(scene, {"pick_files": picked(b"no picture")})


def test_an_exception_in_a_handler_leaves_the_page_usable(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("Choose pictures")
        await phone.until_words("Something went wrong in ImpChat (RuntimeError)")
        await ask(phone, "Hello")
        assert await answered(phone)

    play(scene, {"pick_files": OSError("the platform's picker broke")})


def test_content_that_the_platform_cannot_share_is_copied(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await ask(phone, "Hello")
        text = (await answered(phone))[0]
        await phone.tap("Share")
        assert ("set", {"data": text}) in phone.connection.calls or any(
            name == "set" and text in str(args) for name, args in phone.connection.calls
        )

    play(scene, {"share_text": OSError("nothing to share with")})


def test_the_app_is_shown_in_chinese(play: Play) -> None:
    async def scene(phone: Phone, app: App) -> None:
        await phone.tap("选择图片")
        await phone.until_words("读完了，请提问")
        await phone.type("就图片提问", "圆形是什么颜色？")
        await phone.tap("发送")
        await phone.until(lambda: any("红" in m.value for m in phone.all(ft.Markdown)), "the answer")

    play(scene, {"pick_files": picked(drawing("red"))}, language="zh")
