"""One conversation: which requests the engine gets, in which order, and what the history keeps of it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from impchat import images, settings
from impchat.app import App
from impchat.chat import Chat
from impchat.engines import Engine, EngineInfo
from impchat.errors import ChatError, EngineError, HistoryError, ImageError, SettingsError
from impchat.history import archive
from impchat.messages import (
    Encoding,
    Event,
    Failed,
    Finished,
    Message,
    Picture,
    Reading,
    Ready,
    Sampling,
    Stats,
    Text,
    Turn,
)
from tests.core.scripted import SECONDS, Script, ScriptedEngine

ME = settings.OWNER
READY = Ready(Stats(prompt_tokens=200, new_tokens=200))


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def app(tmp_path: Path, engine: ScriptedEngine) -> Iterator[App]:
    with App.open(tmp_path, engine=engine) as app:
        yield app


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(out, "PNG")
    return out.getvalue()


RED, BLUE = png("red"), png("blue")


def picture(data: bytes) -> Picture:
    stored = images.prepare(data)
    return Picture(stored.image.sha256, stored.data)


def events(source: object, after: int = 0) -> list[Event]:
    return [event for _, event in source.events(after, timeout_s=SECONDS)]  # type: ignore[attr-defined]


def user(text: str, *pictures: bytes) -> Turn:
    return Turn("user", text, tuple(picture(p) for p in pictures))


def made(chat: Chat) -> str:
    """The uuid of a conversation that is in the database."""
    chat.save_draft("")
    assert chat.conversation
    return chat.conversation


def answered(app: App, engine: ScriptedEngine, chat: Chat, text: str, reply: str) -> Message:
    """Send a question and let the engine reply; return the answer's message."""
    answer = chat.send(text)
    engine.next().finish(reply)
    return answer.wait(SECONDS)


# Sending


def test_the_question_is_on_disk_before_the_engine_starts(app: App, engine: ScriptedEngine) -> None:
    seen: list[list[tuple[str, str]]] = []
    chat = app.chat()
    engine.on_start = lambda prompt: seen.append([(m.text, m.state) for m in chat.branch()])
    chat.send("Hello")
    engine.next().finish()

    assert seen == [[("Hello", "done"), ("", "streaming")]]


def test_a_prompt_holds_the_system_text_and_the_turns_with_their_pictures(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    engine.next().say(READY)
    answer = chat.send("What is it?")
    script = engine.next()
    script.finish("Red.", tokens=(7, 8))
    assert script.prompt.system == settings.SYSTEM
    assert script.prompt.key == chat.conversation
    assert script.prompt.turns == (user("What is it?", RED),)
    assert not script.prompt.open_turn

    answer.wait(SECONDS)
    chat.send("Sure?")
    script = engine.next()
    script.finish("Yes.")
    assert script.prompt.turns == (
        user("What is it?", RED),
        Turn("assistant", "Red.", tokens=(7, 8)),
        user("Sure?"),
    )


def test_tokens_of_another_model_are_not_given_to_this_one(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    question = app.history.add_question(made(chat), ME, parent=None, text="Hello")
    row = app.history.start_answer(question.conversation, ME, parent=question.uuid, model="other")
    app.history.finish_answer(row.uuid, text="Good day", state="done", finish_reason="stop", tokens=(5, 6))
    app.chat(question.conversation).send("And?")
    script = engine.next()
    script.finish()

    assert script.prompt.turns[1] == Turn("assistant", "Good day", tokens=None)


def test_a_stopped_answer_stays_in_the_prompt(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Tell me a story")
    engine.next().say("Once upon", Finished("stopped", Stats(), (3, 4)))
    answer.wait(SECONDS)
    chat.send("Go on")
    script = engine.next()
    script.finish()

    assert script.prompt.turns[1] == Turn("assistant", "Once upon", tokens=(3, 4))


def test_a_question_that_was_never_answered_joins_the_next_one(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    engine.next().say(READY)
    failed = chat.send("What is it?")
    engine.next().crash(EngineError("engine.closed"))
    assert failed.wait(SECONDS).state == "failed"
    chat.attach(BLUE)
    prefill = engine.next()
    prefill.say(READY)
    chat.send("And this?")
    script = engine.next()
    script.finish()

    assert prefill.prompt.turns == (user("What is it?", RED, BLUE),)
    assert script.prompt.turns == (user("What is it?\nAnd this?", RED, BLUE),)


def test_sampling_is_the_models_own_unless_given(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Hello")
    own = engine.next()
    own.finish()
    answer.wait(SECONDS)
    chat.send("Hello", sampling=Sampling(temperature=1.0, seed=3))
    given = engine.next()
    given.finish()

    assert own.sampling == engine.info.sampling
    assert given.sampling == Sampling(temperature=1.0, seed=3)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_is_sent_without_text_or_picture(app: App, text: str) -> None:
    chat = app.chat()
    with pytest.raises(ChatError) as caught:
        chat.send(text)
    assert caught.value.code == "question.empty"
    assert chat.conversation is None
    assert app.history.conversations(ME) == []


def test_a_picture_alone_is_a_question(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    engine.next().say(READY)
    chat.send("")
    script = engine.next()
    script.finish("Red.")
    assert script.prompt.turns == (user("", RED),)


def test_what_cannot_be_sent_is_reported_and_changes_nothing(app: App) -> None:
    chat = app.chat()
    for code, send in (
        ("question.too_long", lambda: chat.send("x" * (settings.QUESTION_CHARS + 1))),
        ("question.too_many_images", lambda: chat.send("x", images=["0" * 64] * (settings.IMAGES_PER_MESSAGE + 1))),
        ("history.no_image", lambda: chat.send("x", images=["0" * 64])),
        ("option.out_of_range", lambda: chat.send("x", sampling=Sampling(temperature=-1.0))),
        ("option.out_of_range", lambda: chat.send("x", sampling=Sampling(top_p=float("nan")))),
    ):
        with pytest.raises((ChatError, HistoryError, SettingsError)) as caught:
            send()
        assert caught.value.code == code
        assert caught.value.sentence("en") and caught.value.sentence("zh")
    assert app.history.conversations(ME) == []


def test_only_one_answer_runs_in_a_conversation(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Hello")
    script = engine.next()
    question = chat.branch()[0].uuid
    for ask in (
        lambda: chat.send("Again"),
        lambda: app.chat(chat.conversation).send("Again"),
        lambda: chat.regenerate(question),
        lambda: chat.edit(question, "Hello?"),
    ):
        with pytest.raises(ChatError) as caught:
            ask()
        assert caught.value.code == "chat.busy"
    assert len(chat.branch()) == 2
    script.finish("Good day")
    answer.wait(SECONDS)

    chat.send("Again")
    engine.next().finish()


def test_of_simultaneous_questions_one_is_accepted(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.save_draft("x")
    codes: list[str] = []
    together = threading.Barrier(6)

    def ask() -> None:
        together.wait(SECONDS)
        try:
            app.chat(chat.conversation).send("Hello")
        except ChatError as exc:
            codes.append(exc.code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    engine.next().finish()

    assert codes == ["chat.busy"] * 5
    assert engine.idle()


def test_a_reader_of_the_last_event_can_send_at_once(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    for n in range(20):
        answer = chat.send(f"Question {n}")
        engine.next().finish("Yes")
        assert isinstance(events(answer)[-1], Finished)
    assert len(chat.branch()) == 40


# Attaching


def test_a_picture_is_processed_while_the_user_types(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    attachment = chat.attach(RED)
    script = engine.next()
    script.say(Encoding(attachment.image.sha256), Reading(0, 200), Reading(200, 200), READY)

    assert script.sampling is None
    assert script.prompt.turns == (user("", RED),)
    assert script.prompt.open_turn
    assert (attachment.image.width, attachment.image.height) == (40, 30)
    assert list(attachment.events(timeout_s=SECONDS)) == [
        (1, Encoding(attachment.image.sha256)),
        (2, Reading(0, 200)),
        (3, Reading(200, 200)),
        (4, READY),
    ]


def test_a_send_waits_for_a_picture_that_is_being_processed(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    attachment = chat.attach(RED)
    prefill = engine.next()
    prefill.say(Reading(10, 200))
    answer = app.chat(chat.conversation).send("What is it?")
    stream = answer.events(timeout_s=SECONDS)
    assert next(stream) == (1, Reading(10, 200)), "readers of the answer get the progress of the prefill"
    assert engine.idle(), "there is no second request"
    assert not prefill.stopped, "and the prefill is not cancelled"
    prefill.say(Reading(200, 200), READY)
    engine.next().finish("Red.", generated_tokens=2)

    assert [type(e) for _, e in stream] == [Reading, Text, Finished]
    assert events(attachment)[-1] == READY
    row = answer.wait(SECONDS)
    assert row.stats is not None
    assert row.stats.first_token_s > 0, "the time to the first token includes the wait for the prefill"


def test_complete_words_are_read_while_the_question_is_typed(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.read_typed("What is ")
    assert engine.typed == [], "there is no conversation yet"
    chat.attach(RED)
    engine.next().say(READY)
    for text in ("Wh", "What ", "What is", "What is it"):
        chat.read_typed(text)
    assert engine.typed == ["What", "What", "What is"]
    assert chat.branch() == [], "nothing is stored"
    chat.send("What is it?")
    script = engine.next()
    assert script.prompt.turns == (user("What is it?", RED),)
    chat.read_typed("And now ")
    assert len(engine.typed) == 3, "an answer is running"
    script.finish("Red.")
    app.answer(chat.branch()[-1].uuid).wait()
    app.reads_typed = False
    chat.read_typed("And now ")
    assert len(engine.typed) == 3, "it is switched off"
    app.reads_typed = True
    chat.read_typed("And now ")
    assert engine.typed[-1] == "And now"


class DistantEngine(ScriptedEngine):
    @property
    def info(self) -> EngineInfo:
        return replace(super().info, server="Living room")


def test_words_that_were_not_sent_do_not_leave_the_machine(tmp_path: Path) -> None:
    engine = DistantEngine()
    with App.open(tmp_path, engine=engine) as app:
        chat = app.chat()
        chat.save_draft("What is ")
        chat.read_typed("What is ")
        assert engine.typed == []


def test_attaching_another_picture_cancels_and_processes_both_in_order(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    first = chat.attach(RED)
    script = engine.next()
    second = app.chat(chat.conversation).attach(BLUE)
    both = engine.next()
    both.say(READY)

    assert script.stopped
    assert events(first) == [Finished("stopped", Stats())]
    assert both.prompt.turns == (user("", RED, BLUE),)
    assert events(second) == [READY]
    chat.send("Which?")
    asked = engine.next()
    asked.finish()
    assert asked.prompt.turns == (user("Which?", RED, BLUE),)


def test_a_picture_goes_to_the_place_it_had(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    chat.attach(BLUE)
    chat.detach(picture(RED).sha256)
    order = (picture(RED).sha256, picture(BLUE).sha256)
    assert chat.attach(RED, 0).pictures == order
    assert chat.attach(BLUE, 0).pictures == order, "it is there already"


def test_a_removed_picture_is_not_sent(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    engine.next()
    second = chat.attach(BLUE)
    both = engine.next()
    rest = chat.detach(second.image.sha256)
    assert rest is not None
    assert both.stopped
    alone = engine.next()
    assert alone.prompt.turns == (user("", RED),)
    assert chat.detach(rest.image.sha256) is None
    assert alone.stopped
    assert events(rest) == [Finished("stopped", Stats())]
    chat.send("Hello")
    asked = engine.next()
    asked.finish()
    assert asked.prompt.turns == (user("Hello"),)


def test_a_send_without_the_pictures_does_not_wait_for_them(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    prefill = engine.next()
    chat.send("Hello", images=[])
    asked = engine.next()
    asked.finish()

    assert prefill.stopped
    assert asked.prompt.turns == (user("Hello"),)


def test_a_picture_that_the_engine_failed_to_read_can_be_sent(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    attachment = chat.attach(RED)
    engine.next().crash(EngineError("engine.closed"))
    assert events(attachment) == [Failed("engine.closed", {})]
    chat.send("What is it?")
    asked = engine.next()
    asked.finish("Red.")
    assert asked.prompt.turns == (user("What is it?", RED),)


def test_a_picture_attached_during_an_answer_is_processed_after_it(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Hello")
    script = engine.next()
    attachment = chat.attach(RED)
    assert engine.idle()
    script.finish("Good day")
    answer.wait(SECONDS)
    prefill = engine.next()
    prefill.say(READY)

    assert prefill.prompt.turns == (user("Hello"), Turn("assistant", "Good day"), user("", RED))
    assert events(attachment) == [READY]


def test_stopping_an_answer_that_waits_for_a_picture_stops_its_processing(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    prefill = engine.next()
    prefill.say(Reading(10, 200))
    answer = chat.send("What is it?")
    next(answer.events(timeout_s=SECONDS))
    answer.stop()

    assert answer.wait(SECONDS).state == "stopped"
    assert prefill.stopped
    assert engine.idle()


def test_the_same_picture_attached_twice_is_one_picture(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    chat.attach(RED)
    assert chat.conversation
    assert len(app.history.conversation(chat.conversation, ME).draft_images) == 1


def test_a_file_that_is_no_picture_changes_nothing(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    with pytest.raises(ImageError):
        chat.attach(b"only text")
    assert chat.conversation is None
    chat.attach(RED)
    for n in range(1, settings.IMAGES_PER_MESSAGE):
        chat.attach(png(f"#0000{n:02d}"))
    with pytest.raises(ChatError) as caught:
        chat.attach(BLUE)
    assert caught.value.code == "question.too_many_images"
    assert chat.conversation
    assert len(app.history.conversation(chat.conversation, ME).draft_images) == settings.IMAGES_PER_MESSAGE


def test_a_draft_survives_a_restart(tmp_path: Path) -> None:
    with App.open(tmp_path, engine=ScriptedEngine()) as app:
        chat = app.chat()
        chat.save_draft("What is")
        chat.attach(RED)
    engine = ScriptedEngine()
    with App.open(tmp_path, engine=engine) as app:
        assert chat.conversation
        row = app.history.conversation(chat.conversation, ME)
        assert (row.draft, row.draft_images) == ("What is", (picture(RED).sha256,))
        app.chat(chat.conversation).send("What is it?")
        asked = engine.next()
        asked.finish()
        assert asked.prompt.turns == (user("What is it?", RED),)
        row = app.history.conversation(chat.conversation, ME)
        assert (row.draft, row.draft_images) == ("", ())


# The tree


def test_regenerate_adds_another_answer_to_the_same_question(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    first = answered(app, engine, chat, "Hello", "Good day")
    answer = chat.regenerate(first.uuid)
    script = engine.next()
    script.finish("Hi")
    second = answer.wait(SECONDS)

    assert script.prompt.turns == (user("Hello"),)
    assert second.parent == first.parent
    assert [m.text for m in chat.branch()] == ["Hello", "Hi"]
    assert [m.uuid for m in app.history.siblings(second.uuid, ME)] == [first.uuid, second.uuid]


def test_regenerate_answers_a_question_that_has_no_answer(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    question = app.history.add_question(made(chat), ME, parent=None, text="Hello")
    answer = chat.regenerate(question.uuid)
    engine.next().finish("Good day")
    assert answer.wait(SECONDS).parent == question.uuid


def test_edit_adds_a_new_question_and_keeps_the_old_one(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answered(app, engine, chat, "Hello", "Good day")
    chat.attach(RED)
    engine.next().say(READY)
    old = answered(app, engine, chat, "Is it blue?", "No")
    chat.save_draft("Not yet sent")
    answer = chat.edit(str(old.parent), "Is it red?")
    script = engine.next()
    script.finish("Yes")
    answer.wait(SECONDS)

    assert script.prompt.turns == (user("Hello"), Turn("assistant", "Good day"), user("Is it red?", RED))
    assert [m.text for m in chat.branch()] == ["Hello", "Good day", "Is it red?", "Yes"]
    assert chat.conversation
    assert app.history.conversation(chat.conversation, ME).draft == "Not yet sent"

    chat.show(str(old.parent))
    assert [m.text for m in chat.branch()] == ["Hello", "Good day", "Is it blue?", "No"]


def test_edit_replaces_and_removes_pictures_in_a_new_version(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    for data in (RED, BLUE):
        chat.attach(data)
        engine.next().say(READY)
    first = answered(app, engine, chat, "What?", "Two")
    red, blue = (picture(data).sha256 for data in (RED, BLUE))

    replaced = chat.edit(str(first.parent), "What?", images=[red, png("lime")])
    script = engine.next()
    script.finish("Red and lime")
    second = replaced.wait(SECONDS)
    assert script.prompt.turns == (user("What?", RED, png("lime")),)
    removed = chat.edit(str(second.parent), "And alone?", images=[blue])
    engine.next().finish("Blue")
    removed.wait(SECONDS)
    alone = chat.edit(str(second.parent), "", images=[BLUE])
    engine.next().finish("Blue")
    alone.wait(SECONDS)

    versions = app.history.siblings(str(first.parent), ME)
    assert [(m.text, m.images) for m in versions] == [
        ("What?", (red, blue)),
        ("What?", (red, picture(png("lime")).sha256)),
        ("And alone?", (blue,)),
        ("", (blue,)),
    ]
    with pytest.raises(ImageError):
        chat.edit(str(first.parent), "What?", images=[png("pink"), b"no picture"])
    assert not app.history.image_of(ME, picture(png("pink")).sha256)
    assert len(app.history.siblings(str(first.parent), ME)) == 4


# Continue, delete, fork


def test_a_cut_off_answer_is_continued_as_a_new_version(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Tell me a story")
    engine.next().say("Once upon", Finished("length", Stats(), (3, 4)))
    first = answer.wait(SECONDS)

    going_on = chat.continue_answer(first.uuid)
    script = engine.next()
    assert script.prompt.turns == (user("Tell me a story"), Turn("assistant", "Once upon", tokens=(3, 4)))
    assert script.prompt.is_continued
    row = app.history.message(going_on.message, ME)
    assert (row.text, row.state, row.parent) == ("Once upon", "streaming", first.parent)  # a crash keeps the beginning
    script.finish(" a time", tokens=(5,))
    second = going_on.wait(SECONDS)

    assert (second.text, second.tokens, second.state) == ("Once upon a time", (3, 4, 5), "done")
    assert app.history.message(second.uuid, ME) == second
    assert [m.text for m in app.history.siblings(second.uuid, ME)] == ["Once upon", "Once upon a time"]
    assert [m.text for m in chat.branch()] == ["Tell me a story", "Once upon a time"]
    assert events(going_on)[0] == Text("Once upon", (3, 4))


def test_a_failed_or_interrupted_answer_is_continued_or_retried(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Go")
    engine.next().say("Half an", Failed("engine.broken", {}))
    failed = answer.wait(SECONDS)
    again = chat.continue_answer(failed.uuid)
    engine.next().say(" answer", Failed("engine.broken", {}))
    twice = again.wait(SECONDS)
    assert (twice.text, twice.state) == ("Half an answer", "failed")

    retried = chat.regenerate(twice.uuid)
    script = engine.next()
    assert script.prompt.turns == (user("Go"),)
    script.say(Failed("engine.broken", {}))
    empty = retried.wait(SECONDS)
    anew = chat.continue_answer(empty.uuid)  # nothing to continue
    script = engine.next()
    assert script.prompt.turns == (user("Go"),)
    script.finish("Done")
    assert anew.wait(SECONDS).text == "Done"
    assert [m.text for m in app.history.siblings(empty.uuid, ME)] == ["Half an", "Half an answer", "", "Done"]


def test_what_another_model_began_is_continued_by_its_text(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    question = app.history.add_question(made(chat), ME, parent=None, text="Hello")
    row = app.history.start_answer(question.conversation, ME, parent=question.uuid, model="other")
    app.history.finish_answer(row.uuid, text="Good", state="done", finish_reason="length", tokens=(5,))
    answer = chat.continue_answer(row.uuid)
    script = engine.next()
    assert script.prompt.turns[-1] == Turn("assistant", "Good", tokens=None)
    script.finish(" day", tokens=(6,))
    assert (answer.wait(SECONDS).text, answer.wait(SECONDS).tokens) == ("Good day", None)


def test_only_answers_that_have_ended_can_be_continued_or_deleted(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = chat.send("Go")
    script = engine.next()
    question = chat.branch()[0]
    for call in (chat.continue_answer, chat.delete_message):
        with pytest.raises(ChatError) as caught:
            call(answer.message)
        assert caught.value.code == "chat.busy"
    script.finish("Gone")
    answer.wait(SECONDS)
    with pytest.raises(ChatError) as caught:
        chat.continue_answer(question.uuid)
    assert caught.value.code == "chat.not_an_answer"
    elsewhere = app.history.start_answer(question.conversation, ME, parent=question.uuid, model="m")
    with pytest.raises(ChatError) as caught:
        chat.delete_message(question.uuid)
    assert caught.value.code == "chat.busy" and elsewhere.state == "streaming"


def test_a_deleted_round_is_not_read_by_the_model_and_an_undo_brings_it_back(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answered(app, engine, chat, "One", "1")
    second = answered(app, engine, chat, "Two", "2")
    chat.delete_message(str(second.parent))
    chat.send("Three")
    script = engine.next()
    script.finish("3")
    assert script.prompt.turns == (user("One"), Turn("assistant", "1"), user("Three"))
    assert app.running(str(chat.conversation)) is None or app.running(str(chat.conversation)).wait(SECONDS)  # type: ignore[union-attr]

    chat.restore_message(str(second.parent))
    assert [m.text for m in chat.branch()] == ["One", "1", "Two", "2"]
    assert [m.text for m in app.history.siblings(str(second.parent), ME)] == ["Two", "Three"]
    with pytest.raises(HistoryError):
        chat.restore_message(str(second.parent))


def test_a_question_whose_answer_was_deleted_can_be_answered_again(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    answer = answered(app, engine, chat, "One", "1")
    chat.delete_message(answer.uuid)
    assert [m.text for m in chat.branch()] == ["One"]
    again = chat.regenerate(str(answer.parent))
    engine.next().finish("uno")
    assert again.wait(SECONDS).text == "uno"
    assert [m.text for m in chat.branch()] == ["One", "uno"]


def test_a_fork_is_a_chat_of_its_own_with_the_messages_so_far(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    chat.attach(RED)
    engine.next().say(READY)
    first = answered(app, engine, chat, "What is it?", "Red.")
    answered(app, engine, chat, "Sure?", "Yes")
    app.history.update_conversation(first.conversation, ME, folder="F", tags=["x"], pinned=True)
    before = chat.branch()

    fork = chat.fork(first.uuid)
    row = app.history.conversation(str(fork.conversation), ME)
    assert (row.title, row.folder, row.tags, row.pinned) == ("What is it?", "F", ("x",), False)
    assert [(m.text, m.images) for m in fork.branch()] == [(m.text, m.images) for m in before[:2]]
    assert not {m.uuid for m in fork.branch()} & {m.uuid for m in before}
    fork.send("Why?")
    script = engine.next()
    script.finish("Paint")
    assert script.prompt.turns == (user("What is it?", RED), Turn("assistant", "Red."), user("Why?"))
    assert script.prompt.key == fork.conversation
    assert chat.branch() == before

    app.history.purge_conversation(first.conversation, ME)
    assert app.history.image_bytes(picture(RED).sha256) == picture(RED).data

    question = fork.branch()[0]
    at_question = fork.fork(question.uuid)
    assert [m.text for m in at_question.branch()] == ["What is it?"]
    with pytest.raises(HistoryError):
        chat.fork(question.uuid)


def test_only_questions_can_be_edited_and_only_answers_can_be_followed_up(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    row = answered(app, engine, chat, "Hello", "Good day")
    with pytest.raises(ChatError) as caught:
        chat.edit(row.uuid, "Hi")
    assert caught.value.code == "chat.not_a_question"
    with pytest.raises(ChatError) as caught:
        app.answer(str(row.parent))
    assert caught.value.code == "chat.not_an_answer"


# Owners


def test_another_owner_neither_sees_nor_changes_a_conversation(app: App, engine: ScriptedEngine) -> None:
    mine = app.chat(owner="ann")
    mine.attach(RED)
    engine.next().say(READY)
    row = answered(app, engine, mine, "Hello", "Good day")
    theirs = app.chat(owner="bob")
    other = answered(app, engine, theirs, "Hello", "Good day")
    for look in (
        lambda: app.chat(mine.conversation, owner="bob"),
        lambda: app.answer(row.uuid, owner="bob"),
        lambda: app.running(row.conversation, owner="bob"),
        lambda: theirs.regenerate(row.uuid),
        lambda: theirs.edit(str(row.parent), "x"),
        lambda: theirs.show(row.uuid),
        lambda: theirs.send("x", images=[picture(RED).sha256]),
    ):
        with pytest.raises(HistoryError) as caught:
            look()
        assert caught.value.code in ("history.no_conversation", "history.no_message", "history.no_image")
    with pytest.raises(HistoryError):
        app.chat(mine.conversation, owner="ann").regenerate(other.uuid)


def test_a_message_of_another_conversation_is_refused(app: App, engine: ScriptedEngine) -> None:
    first, second = app.chat(), app.chat()
    row = answered(app, engine, first, "Hello", "Good day")
    answered(app, engine, second, "Hello", "Good day")
    with pytest.raises(HistoryError) as caught:
        second.regenerate(row.uuid)
    assert caught.value.code == "history.no_message"


def test_closing_ends_prefills(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    with App.open(tmp_path, engine=engine) as app:
        attachment = app.chat().attach(RED)
        script: Script = engine.next()
    assert script.stopped
    assert events(attachment) == [Finished("stopped", Stats())]


def test_simultaneous_typing_and_attaching_create_one_chat(app: App) -> None:
    for _ in range(20):
        chat, together = app.chat(), threading.Barrier(2)

        def draft(chat: Chat = chat, together: threading.Barrier = together) -> None:
            together.wait(SECONDS)
            chat.save_draft("What is")

        typing = threading.Thread(target=draft)
        typing.start()
        together.wait(SECONDS)
        chat.attach(RED)
        typing.join()
    assert len(app.history.conversations(ME)) == 20


def test_a_question_to_a_server_does_not_wait_for_a_local_prefill(app: App, engine: ScriptedEngine) -> None:
    chat = app.chat()
    attachment = chat.attach(RED)
    here = engine.next()  # still processing
    elsewhere, opened = ScriptedEngine(), Future[Engine]()
    opened.set_result(elsewhere)
    core = replace(app._core, opened=lambda: opened, model="other")
    answer = Chat(core, chat.conversation, ME).send("What is it?")
    script = elsewhere.next()
    assert script.prompt.turns == (user("What is it?", RED),)
    assert here.stopped
    assert isinstance(events(attachment)[-1], Finished)
    script.finish("A square")
    assert answer.wait(SECONDS).text == "A square"


def test_a_chat_whose_process_died_before_the_answer_can_continue(app: App, engine: ScriptedEngine) -> None:
    row = app.history.create_conversation(ME)
    app.history.add_question(row.uuid, ME, parent=None, text="What is it?")
    chat = app.chat(row.uuid)
    answer = chat.send("Are you there?")
    script = engine.next()
    assert script.prompt.turns == (user("What is it?\nAre you there?"),)
    script.finish("Yes")
    answer.wait(SECONDS)
    assert [(m.role, m.state) for m in chat.branch()] == [
        ("user", "done"), ("assistant", "interrupted"), ("user", "done"), ("assistant", "done"),
    ]  # fmt: skip


# Temporary chats


def files(folder: Path) -> dict[str, bytes]:
    """The files and their content, without SQLite's shared memory, which changes with every read."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"}


def test_a_temporary_chat_works_like_any_other_and_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    engine = ScriptedEngine()
    app = App.open(tmp_path / "data", engine=engine)
    answered(app, engine, app.chat(), "A stored question", "An answer")
    before = files(tmp_path)

    chat = app.temporary.chat()
    chat.save_draft("secret draft")
    chat.attach(RED)
    engine.next().say(READY)
    answer = chat.send("A secret question")
    script = engine.next()
    assert script.prompt.turns == (user("A secret question", RED),) and not app.idle
    script.finish("A secret answer")
    first = answer.wait(SECONDS)
    follow = app.temporary.chat(chat.conversation).send("More")
    script = engine.next()
    assert script.prompt.turns[-1] == user("More")
    script.say("Half", Finished("length", Stats()))
    half = follow.wait(SECONDS)
    going_on = chat.continue_answer(half.uuid)
    engine.next().finish(" and whole")
    assert going_on.wait(SECONDS).text == "Half and whole"

    history = app.temporary.history
    assert [hit.message for hit in history.search(ME, "secret answer")] == [first.uuid]
    assert len(history.pictures(ME, query="secret")) == 1
    assert app.temporary.thumbnails.get(picture(RED).sha256)
    assert app.temporary.answer(first.uuid).text == "A secret answer"
    with pytest.raises(HistoryError):
        app.chat(chat.conversation)
    assert [c.title for c in app.history.conversations(ME)] == ["A stored question"]
    assert app.history.search(ME, "secret") == [] and app.history.pictures(ME) == []
    assert files(tmp_path) == before

    kept = archive.import_zip(app.history, archive.export_zip(history, str(chat.conversation), ME), ME)  # on request
    assert kept.title == "A secret question"
    app.history.purge_conversation(kept.uuid, ME)
    running = chat.send("Still running")
    engine.next()
    app.close()
    assert running.wait(SECONDS).state == "stopped"
    assert not any(RED in data for data in files(tmp_path).values())
    with App.open(tmp_path / "data", engine=ScriptedEngine()) as again:
        assert again.temporary.history.conversations(ME) == []


def test_a_purged_temporary_chat_frees_its_pictures(app: App, engine: ScriptedEngine) -> None:
    chat = app.temporary.chat()
    chat.attach(RED)
    engine.next().say(READY)
    assert app.temporary.thumbnails.get(picture(RED).sha256)
    app.temporary.history.purge_conversation(made(chat), ME)
    with pytest.raises(HistoryError):
        app.temporary.thumbnails.get(picture(RED).sha256)
    with pytest.raises(HistoryError):
        app.temporary.history.image_bytes(picture(RED).sha256)
