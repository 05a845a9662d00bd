"""The App with the real demo model: its answers, what it processes again and what it reuses, and its errors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from impchat import paths, settings, speedtest, storage
from impchat.answer import Answer
from impchat.app import App, Resources, choose_bundle
from impchat.bundle import MANIFEST, Bundle
from impchat.engines.local.engine import LocalEngine
from impchat.errors import HistoryError, ModelError
from impchat.messages import Event, Failed, Finished, Message, Ready, Sampling, Text
from tests.core.conftest import Draw
from tests.core.hands import copy_model, endless_model
from tests.core.scripted import SECONDS

ME = settings.OWNER
LONG_S = 6 * SECONDS


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App.open(tmp_path) as app:
        yield app


@pytest.fixture(scope="module")
def endless(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return endless_model(demo.path, tmp_path_factory.mktemp("models") / "endless")


def answered(answer: Answer) -> Message:
    row = answer.wait(LONG_S)
    assert row.state == "done", row
    assert row.stats is not None
    return row


# Answers


@pytest.mark.parametrize(
    ("colour", "question", "word"),
    [
        ("red", "What colour is the circle?", "red"),
        ("blue", "What colour is the circle?", "blue"),
        ("red", "圆形是什么颜色？", "红"),
        ("blue", "圆形是什么颜色？", "蓝"),
    ],
)
def test_the_demo_model_sees_what_was_drawn(app: App, draw: Draw, colour: str, question: str, word: str) -> None:
    chat = app.chat()
    chat.attach(draw(colour).data)
    assert word in answered(chat.send(question)).text.lower()


def test_a_later_turn_processes_only_its_own_tokens(app: App, draw: Draw) -> None:
    chat = app.chat()
    chat.attach(draw("red").data)
    first = answered(chat.send("What colour is the circle?")).stats
    second = answered(chat.send("Is there a square?")).stats
    third = answered(chat.send("How many circles are there?")).stats
    assert first and second and third

    assert first.prompt_tokens > 196
    for before, stats in ((first, second), (second, third)):
        assert stats.cached_tokens >= before.prompt_tokens, "the whole previous prompt is cached"
        assert stats.new_tokens < 40
        assert stats.vision_s == 0


def test_a_continued_answer_goes_on_as_if_it_had_not_been_cut(app: App, draw: Draw) -> None:
    greedy = Sampling(temperature=0.0)
    chat = app.chat()
    chat.attach(draw("red").data)
    whole = answered(chat.send("What colour is the circle?", sampling=greedy))
    assert whole.tokens and len(whole.tokens) > 3
    cut = answered(chat.regenerate(whole.uuid, replace(greedy, max_tokens=2)))
    assert cut.finish_reason == "length" and whole.text.startswith(cut.text) and cut.text
    continued = answered(chat.continue_answer(cut.uuid, greedy))
    assert (continued.text, continued.tokens, continued.finish_reason) == (whole.text, whole.tokens, "stop")
    assert continued.stats and continued.stats.new_tokens <= 2, "the rest of the prompt is cached"
    more = answered(chat.send("Is there a square?"))
    assert more.stats and more.stats.new_tokens < 40


def test_an_attached_picture_is_processed_before_the_question(app: App, draw: Draw) -> None:
    chat = app.chat()
    attachment = chat.attach(draw("red").data)
    *_, (_, last) = attachment.events(timeout_s=LONG_S)
    assert isinstance(last, Ready)
    assert last.stats.new_tokens > 196

    stats = answered(chat.send("What colour is the circle?")).stats
    assert stats
    assert stats.cached_tokens >= last.stats.prompt_tokens - 1
    assert stats.new_tokens < 40
    assert stats.vision_s == 0


def test_a_question_sent_at_once_encodes_its_picture_once(app: App, draw: Draw) -> None:
    chat = app.chat()
    attachment = chat.attach(draw("red").data)
    stats = answered(chat.send("What colour is the circle?")).stats
    *_, (_, last) = attachment.events(timeout_s=LONG_S)

    assert stats
    assert isinstance(last, Ready)
    assert stats.vision_s == 0, "the prefill had encoded it"
    assert stats.new_tokens < 40


def test_a_second_picture_keeps_the_cached_first_one(app: App, draw: Draw) -> None:
    chat = app.chat()
    *_, (_, first) = chat.attach(draw("red").data).events(timeout_s=LONG_S)
    *_, (_, both) = chat.attach(draw("blue").data).events(timeout_s=LONG_S)
    assert isinstance(first, Ready) and isinstance(both, Ready)
    assert both.stats.cached_tokens >= first.stats.prompt_tokens - 1
    stats = answered(chat.send("What is in the two pictures?")).stats
    assert stats
    assert stats.new_tokens < 40


def test_an_edited_question_does_not_process_its_picture_again(app: App, draw: Draw) -> None:
    chat = app.chat()
    chat.attach(draw("red").data)
    first = answered(chat.send("What colour is the circle?"))
    assert first.parent
    stats = answered(chat.edit(first.parent, "Is there a circle?")).stats
    assert stats
    assert stats.cached_tokens > 196
    assert stats.vision_s == 0


def test_tokens_are_kept_with_the_answer(app: App) -> None:
    row = answered(app.chat().send("Hello!"))
    assert row.tokens
    assert row.stats
    assert len(row.tokens) <= row.stats.generated_tokens
    assert row.model == settings.DEMO_MODEL


def test_a_data_folder_may_be_a_string(tmp_path: Path) -> None:
    with App.open(f"{tmp_path}/data") as app:
        assert app.data == tmp_path / "data"


# During an answer


def test_a_page_reloaded_during_an_answer_gets_all_of_it(tmp_path: Path, endless: Path) -> None:
    with App.open(tmp_path, endless) as app:
        answer = app.chat().send("Tell me a story")
        reader = answer.events(timeout_s=LONG_S)
        seen: list[tuple[int, Event]] = []
        while sum(isinstance(event, Text) for _, event in seen) < 20:
            seen.append(next(reader))
        reader.close()  # type: ignore[attr-defined]  # the page goes

        again = app.answer(answer.message)
        assert again.state == "streaming"
        reloaded = again.events(timeout_s=LONG_S)
        assert [next(reloaded) for _ in seen] == seen
        more = [next(reloaded) for _ in range(20)]
        app.answer(answer.message).stop()
        rest = list(reloaded)
        everything = seen + more + rest
        row = again.wait(LONG_S)

    assert [number for number, _ in everything] == list(range(1, len(everything) + 1))
    assert isinstance(everything[-1][1], Finished)
    assert row.state == "stopped"
    assert row.text == "".join(event.text for _, event in everything if isinstance(event, Text))


def test_two_conversations_are_answered_at_once(tmp_path: Path, endless: Path) -> None:
    with App.open(tmp_path, endless) as app:
        answers = [app.chat().send("Tell me a story") for _ in range(2)]
        for answer in answers:
            assert any(isinstance(event, Text) for _, event in answer.events(timeout_s=LONG_S))
        assert [answer.state for answer in answers] == ["streaming", "streaming"]
    assert [answer.state for answer in answers] == ["stopped", "stopped"]


def test_closing_during_the_first_words_keeps_them(tmp_path: Path, endless: Path) -> None:
    with App.open(tmp_path, endless) as app:
        answer = app.chat().send("Tell me a story")
        assert any(isinstance(event, Text) for _, event in answer.events(timeout_s=LONG_S))
    with App.open(tmp_path) as app:
        row = app.history.message(answer.message, ME)
        assert row.state == "stopped"
        assert row.text == answer.text != ""


# Opening


def test_the_engine_opens_once_for_all_threads(app: App) -> None:
    together = threading.Barrier(4)

    def open_engine(_: int) -> object:
        together.wait(SECONDS)
        return app.engine

    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(open_engine, range(4)))
    assert len(set(map(id, engines))) == 1
    assert app.engine.info.model == app.model == settings.DEMO_MODEL
    assert app.demo


def test_the_model_is_chosen_by_argument_then_environment_then_the_demo(
    tmp_path: Path, demo: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMPCHAT_MODEL", raising=False)
    mine = copy_model(demo.path, paths.models_dir(tmp_path) / "mine", id="mine")
    other = copy_model(demo.path, tmp_path / "other", id="other")

    assert choose_bundle(tmp_path).id == settings.DEMO_MODEL
    monkeypatch.setenv("IMPCHAT_MODEL", str(other))
    assert choose_bundle(tmp_path).id == "other"
    assert choose_bundle(tmp_path, "mine").path == mine
    assert choose_bundle(tmp_path, mine).id == "mine"
    assert choose_bundle(tmp_path, settings.DEMO_MODEL).id == settings.DEMO_MODEL


@pytest.mark.parametrize(
    ("model", "code"), [("no-such-model", "model.unknown"), ("no/such/folder", "model.missing")], ids=["id", "path"]
)
def test_a_missing_model_is_reported_in_one_sentence(tmp_path: Path, model: str, code: str) -> None:
    with pytest.raises(ModelError) as caught:
        App.open(tmp_path, model)
    assert caught.value.code == code
    assert "no" in caught.value.sentence("en")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format": 999}'])
def test_a_broken_manifest_is_reported_in_one_sentence(tmp_path: Path, demo: Bundle, text: str) -> None:
    model = copy_model(demo.path, tmp_path / "model")
    (model / MANIFEST).write_text(text)
    with pytest.raises(ModelError) as caught:
        App.open(tmp_path, model)
    assert caught.value.code in ("model.manifest_broken", "model.format_newer")


def test_a_file_that_differs_from_the_manifest_fails_the_answer_and_keeps_the_question(
    tmp_path: Path, demo: Bundle
) -> None:
    model = copy_model(demo.path, tmp_path / "model")
    manifest = json.loads((model / MANIFEST).read_text())
    language = model / manifest["files"]["language"]["name"]
    good = language.read_bytes()
    language.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    with App.open(tmp_path, model) as app:
        chat = app.chat()
        answer = chat.send("Hello!")
        *_, (_, last) = answer.events(timeout_s=LONG_S)
        assert isinstance(last, Failed)
        assert last.code == "model.checksum"
        assert [(m.text, m.state) for m in chat.branch()] == [("Hello!", "done"), ("", "failed")]

        language.write_bytes(good)
        assert answered(chat.regenerate(answer.message)).text, "it works again with the right file"


def test_an_unwritable_data_folder_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError) as caught:
        App.open(tmp_path / "file" / "data")
    assert caught.value.code == "data.unwritable"


# Memory and resources


def test_an_unloaded_model_is_loaded_again_for_the_next_question(app: App, draw: Draw) -> None:
    chat = app.chat()
    chat.attach(draw("red").data)
    answered(chat.send("What colour is the circle?"))
    assert app.loaded
    app.unload()
    assert not app.loaded
    assert "red" in answered(chat.send("What colour is the circle?")).text.lower()


def test_other_resources_take_effect_at_the_next_question(app: App) -> None:
    assert app.bundle
    answered(app.chat().send("Hello"))
    app.run_with(app.bundle, Resources(slots=1, threads=1, context_tokens=512))
    assert app.context_tokens == 512
    answered(app.chat().send("Hello"))
    assert app.engine.info.context_tokens == 512


def test_an_app_is_idle_when_nothing_runs(app: App) -> None:
    assert app.idle
    answer = app.chat().send("Hello")
    answered(answer)
    assert app.idle


def test_storage_is_measured_and_cleared(app: App, draw: Draw) -> None:
    kept, gone = app.chat(), app.chat()
    for chat, colour in ((kept, "red"), (gone, "blue")):
        chat.attach(draw(colour).data)
        answered(chat.send("Hello"))
    assert gone.conversation
    app.history.delete_conversation(gone.conversation, ME)
    before = storage.used(app)
    assert before.deleted == 1
    assert before.pictures > 0 < before.conversations
    assert storage.empty_deleted(app) == 1
    assert storage.used(app).pictures < before.pictures
    assert len(app.history.conversations(ME)) == 1
    storage.clear_conversations(app)
    assert storage.used(app).pictures == 0
    assert app.history.conversations(ME) == []


def test_the_speed_test_measures_a_picture_that_is_not_cached(app: App) -> None:
    for _ in range(2):
        figures = speedtest.run(app.engine)
        assert figures.vision_s > 0
        assert figures.generated_tokens == 64, "as many as announced, although the demo's answer is shorter"
        assert figures.prompt_tokens > 196
        assert figures.total_s > figures.vision_s


def test_the_system_text_is_read_before_the_first_question(tmp_path: Path) -> None:
    with App.open(tmp_path) as app:
        engine = app.engine
        assert isinstance(engine, LocalEngine)
        slots, end = engine._scheduler._slots._slots, time.monotonic() + 20
        while not any(slot.cells and not slot.busy for slot in slots):
            assert time.monotonic() < end
            time.sleep(0.01)
        stats = app.chat().send("Hello!").wait(20).stats
        assert stats and stats.cached_tokens > 10
