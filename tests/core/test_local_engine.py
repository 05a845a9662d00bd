"""The local engine: the conformance suite, the KV cache, batches, errors and memory."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from impchat import machine, settings
from impchat.app import App
from impchat.bundle import Bundle
from impchat.engines import Engine, Handle
from impchat.engines.local.engine import LocalEngine
from impchat.errors import ModelError, SettingsError
from impchat.messages import (
    Dropped,
    Encoding,
    Event,
    Picture,
    Prompt,
    Queued,
    Reading,
    Ready,
    Sampling,
    Stats,
    Text,
    Turn,
)
from tests.core.conformance import GREEDY, WILD, EngineConformance, ask, failed, finished, run, text_of, until
from tests.core.conftest import Draw

NO_TOKEN = 2**31 - 1  # no model has this token, so no answer ends with it

Open = Callable[..., LocalEngine]


@pytest.fixture
def open_engine(demo: Bundle) -> Iterator[Open]:
    """Opens engines of the demo model that are closed after the test. `eos`: the token that ends an answer, if it is
    not the model's own."""
    opened: list[LocalEngine] = []

    def open_engine(*, eos: int | None = None, **options: int) -> LocalEngine:
        bundle = demo if eos is None else replace(demo, text=replace(demo.text, eos=(eos,)))
        opened.append(LocalEngine(bundle, **{"threads": 1, **options}))
        return opened[-1]

    yield open_engine
    for engine in opened:
        engine.close()


@pytest.fixture
def engine(open_engine: Open) -> LocalEngine:
    return open_engine()


@pytest.fixture
def endless(open_engine: Open) -> LocalEngine:
    return open_engine(eos=NO_TOKEN)


class TestConformance(EngineConformance):
    @pytest.fixture
    def engine(self, open_engine: Open) -> Engine:  # type: ignore[override]
        return open_engine()

    @pytest.fixture
    def endless(self, open_engine: Open) -> Engine:  # type: ignore[override]
        return open_engine(eos=NO_TOKEN)


def answered(prompt: Prompt, events: list[Event], question: str, *pictures: Picture) -> Prompt:
    """`prompt` with its answer as the history stores it, and the next question."""
    answer = Turn("assistant", text_of(events), tokens=finished(events).tokens)
    return replace(prompt, turns=(*prompt.turns, answer, Turn("user", question, pictures)))


def typing(*pictures: Picture, key: str = "", turns: tuple[Turn, ...] = ()) -> Prompt:
    """The prompt of a prefill: the pictures without a question."""
    return Prompt(settings.SYSTEM, (*turns, Turn("user", "", pictures)), key, open_turn=True)


def length(prompt: Prompt, bundle: Bundle, open_engine: Open) -> int:
    """Tokens of `prompt`, counted by a new engine."""
    fresh = open_engine()
    end = run(fresh.prefill(prompt))[-1]
    fresh.close()
    assert isinstance(end, Ready)
    return end.stats.new_tokens


# The KV cache


def test_each_turn_processes_only_its_own_tokens(engine: Engine, demo: Bundle, open_engine: Open, draw: Draw) -> None:
    prompt = ask("What is it?", draw("red"), key="a")
    before = 0
    for question, pictures in [("And the colour?", ()), ("And this?", (draw("blue"),)), ("Which is bigger?", ())]:
        events = run(engine.start(prompt, GREEDY))
        end = finished(events)
        assert end.stats.prompt_tokens == length(prompt, demo, open_engine)
        assert end.stats.cached_tokens == before
        # The last token was sampled; it is processed with the next turn unless eos followed it.
        before = end.stats.prompt_tokens + len(end.tokens) - (end.finish_reason == "length")
        prompt = answered(prompt, events, question, *pictures)
    assert finished(run(engine.start(prompt, GREEDY))).stats.cached_tokens == before


def test_after_a_prefill_only_the_question_is_processed(engine: Engine, draw: Draw) -> None:
    end = run(engine.prefill(typing(draw("red"), key="a")))[-1]
    assert isinstance(end, Ready)
    events = run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))
    stats = finished(events).stats
    assert stats.cached_tokens == end.stats.prompt_tokens > engine.info.image_tokens
    assert stats.vision_s == 0 and Encoding(draw("red").sha256) not in events
    assert stats.new_tokens < 20


def test_a_question_sent_during_the_prefill_of_its_picture_joins_it(engine: Engine, draw: Draw) -> None:
    reading = engine.prefill(typing(draw("red"), key="a"))
    until(reading.events(), Encoding)
    stats = finished(run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))).stats
    end = run(reading)[-1]
    assert isinstance(end, Ready)
    assert stats.cached_tokens == end.stats.prompt_tokens
    assert stats.vision_s == 0 < end.stats.vision_s


def test_two_questions_about_one_picture_at_once_process_it_once(engine: Engine, draw: Draw) -> None:
    one = engine.start(ask("What is it?", draw("red"), key="a"), GREEDY)
    two = engine.start(ask("How many shapes are there?", draw("red"), key="b"), GREEDY)
    stats = [finished(run(handle)).stats for handle in (one, two)]
    first, second = sorted(stats, key=lambda each: each.cached_tokens)  # each is tokenised on a thread of its own
    assert first.cached_tokens == 0
    assert second.cached_tokens > engine.info.image_tokens
    assert second.vision_s == 0


def test_a_question_continues_a_prefill_that_was_stopped(engine: Engine, draw: Draw) -> None:
    reading = engine.prefill(typing(draw("red"), key="a"))
    question = engine.start(ask("What is it?", draw("red"), key="a"), GREEDY)
    reading.stop()
    events = run(question)
    assert text_of(events)
    stopped = finished(run(reading)).stats
    assert finished(events).stats.cached_tokens >= stopped.prompt_tokens


def test_a_prefill_of_a_cached_prompt_is_ready_at_once(engine: Engine, draw: Draw) -> None:
    run(engine.prefill(typing(draw("red"), key="a")))
    [end] = run(engine.prefill(typing(draw("red"), key="a")))
    assert isinstance(end, Ready)
    assert (end.stats.cached_tokens, end.stats.new_tokens) == (end.stats.prompt_tokens, 0)


def test_another_answer_to_the_same_question_processes_one_token(engine: Engine, draw: Draw) -> None:
    prompt = ask("What is it?", draw("red"), key="a")
    first = run(engine.start(prompt, GREEDY))
    again = run(engine.start(prompt, GREEDY))
    assert finished(again).stats.new_tokens == 1
    assert finished(again).tokens == finished(first).tokens


def test_the_answer_is_the_same_with_and_without_the_kv_cache(open_engine: Open, draw: Draw) -> None:
    kept = open_engine()
    prompt = ask("What is it?", draw("red"), key="a")
    for question in ("How many shapes are there?", "Where is it?"):
        prompt = answered(prompt, run(kept.start(prompt, GREEDY)), question)
    fresh = open_engine()
    cached, anew = finished(run(kept.start(prompt, GREEDY))), finished(run(fresh.start(prompt, GREEDY)))
    assert cached.stats.cached_tokens > 0 == anew.stats.cached_tokens
    assert cached.tokens == anew.tokens


def test_an_edited_question_is_processed_from_the_first_difference(engine: Engine, draw: Draw) -> None:
    run(engine.start(ask("What is the red thing?", draw("red"), key="a"), GREEDY))
    stats = finished(run(engine.start(ask("What is the blue thing?", draw("red"), key="a"), GREEDY))).stats
    assert stats.cached_tokens > engine.info.image_tokens
    assert 1 < stats.new_tokens < 20


def test_another_picture_is_processed(engine: Engine, draw: Draw) -> None:
    run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))
    events = run(engine.start(ask("What is it?", draw("blue"), key="a"), GREEDY))
    assert Encoding(draw("blue").sha256) in events
    assert finished(events).stats.new_tokens > engine.info.image_tokens


def test_the_same_picture_in_another_chat_is_neither_encoded_nor_processed_again(engine: Engine, draw: Draw) -> None:
    run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))
    events = run(engine.start(ask("How many shapes are there?", draw("red"), key="b"), GREEDY))
    stats = finished(events).stats
    assert stats.cached_tokens > engine.info.image_tokens
    assert stats.vision_s == 0
    # and the first conversation keeps its cells
    again = finished(run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY)))
    assert again.stats.new_tokens == 1


def test_a_shared_prefix_gives_the_same_answer_as_a_processed_one(open_engine: Open, draw: Draw) -> None:
    prompt = ask("How many shapes are there?", draw("red"), key="b")
    sharing = open_engine()
    run(sharing.start(ask("What is it?", draw("red"), key="a"), GREEDY))
    assert (
        finished(run(sharing.start(prompt, GREEDY))).tokens == finished(run(open_engine().start(prompt, GREEDY))).tokens
    )


def test_a_picture_later_in_another_chat_is_processed_but_not_encoded_again(engine: Engine, draw: Draw) -> None:
    run(engine.start(ask("What is it?", draw("red"), key="a"), GREEDY))
    hello = ask("Hello!", key="b")
    prompt = answered(hello, run(engine.start(hello, GREEDY)), "What is it?", draw("red"))
    events = run(engine.start(prompt, GREEDY))
    assert Encoding(draw("red").sha256) not in events
    assert finished(events).stats.vision_s == 0
    assert finished(events).stats.new_tokens > engine.info.image_tokens


def test_two_pictures_in_one_question_are_both_processed(engine: Engine, draw: Draw) -> None:
    events = run(engine.start(ask("Which is bigger?", draw("red"), draw("blue")), GREEDY))
    assert [e.image for e in events if isinstance(e, Encoding)] == [draw("red").sha256, draw("blue").sha256]
    assert finished(events).stats.new_tokens > 2 * engine.info.image_tokens


def test_one_picture_twice_in_a_prompt_is_encoded_once(engine: Engine, draw: Draw) -> None:
    events = run(engine.start(ask("Are they the same?", draw("red"), draw("red")), GREEDY))
    assert [e.image for e in events if isinstance(e, Encoding)] == [draw("red").sha256]
    assert finished(events).stats.new_tokens > 2 * engine.info.image_tokens


def test_with_more_conversations_than_slots_the_latest_are_kept(open_engine: Open) -> None:
    engine = open_engine(slots=2)

    def read_now(key: str) -> int:
        prompt = Prompt(f"{key}: a system text of its own.", (Turn("user", "Hello!"),), key)
        return finished(run(engine.start(prompt, GREEDY))).stats.new_tokens

    first = [read_now(key) for key in "abc"]
    assert read_now("c") == read_now("b") == 1
    assert read_now("a") == first[0]


# Simultaneous requests


def read_all(handles: dict[str, Handle], stop: Callable[[str, Event], None]) -> list[tuple[str, Event]]:
    """The events of several handles in the order of their arrival; `stop` is called with each."""
    seen: list[tuple[str, Event]] = []

    def read(name: str) -> None:
        for event in handles[name].events():
            seen.append((name, event))
            stop(name, event)

    threads = [threading.Thread(target=read, args=(name,)) for name in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def test_an_answer_continues_while_a_long_prompt_is_processed(endless: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "PREFILL_SHARED_STEP_S", 0.0)  # as on a machine that reads slowly
    running = endless.start(ask("Hello!"), WILD)
    until(running.events(), Text)
    reading = endless.start(ask("circle " * 150), GREEDY)

    def stop(name: str, event: Event) -> None:
        if name == "reading" and isinstance(event, Text):
            running.stop()

    seen = read_all({"running": running, "reading": reading}, stop)
    progress = [n for n, (name, event) in enumerate(seen) if name == "reading" and isinstance(event, Reading)]
    between = [
        event for name, event in seen[progress[0] : progress[-1]] if name == "running" and isinstance(event, Text)
    ]
    assert len(progress) > 10
    assert len(between) > 3


def typed(words: str, *pictures: Picture, key: str = "") -> Prompt:
    """The prompt of a prefill while `words` have been typed."""
    return Prompt(settings.SYSTEM, (Turn("user", words, pictures),), key, open_turn=True)


def unread(events: list[Event]) -> bool:
    """Whether a prefill ended without reading anything."""
    [end] = (event for event in events if isinstance(event, Ready))
    return end.stats.new_tokens == 0


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has processor time to spare, whatever else it runs."""
    monkeypatch.setattr(machine, "is_spare", lambda: True)


@pytest.mark.usefixtures("spare")
def test_a_question_costs_only_what_was_not_read_while_it_was_typed(engine: Engine, draw: Draw) -> None:
    picture = draw("red")
    asked = replace(ask("What colour is the circle?", picture), key="chat")
    whole = finished(run(engine.start(replace(asked, key="other"), GREEDY)))
    run(engine.prefill(typed("", draw("blue"), key="chat")))
    run(engine.prefill(replace(typed("", picture), key="chat")))
    for words in ("What", "What colour", "What colour was", "What colour is the"):  # one word is corrected
        run(engine.prefill(typed(words, picture, key="chat")))
    events = run(engine.start(asked, GREEDY))
    assert "red" in text_of(events)
    stats = finished(events).stats
    assert stats.prompt_tokens == whole.stats.prompt_tokens and stats.new_tokens <= 6
    assert finished(events).tokens == whole.tokens


@pytest.mark.usefixtures("spare")
def test_words_that_are_typed_delay_no_answer_and_evict_no_conversation(
    open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(slots=1)
    run(engine.start(ask("Hello!", key="first"), GREEDY))
    assert unread(run(engine.prefill(typed("a different question", key="second"))))
    again = finished(run(engine.start(ask("Hello!", key="first"), GREEDY)))
    assert again.stats.new_tokens == 1, "its cells are still there"
    monkeypatch.setattr(settings, "PREFILL_STEP_S", 0.0)  # as on a machine that reads slowly
    reading = engine.prefill(typed("circle " * 300, key="first")).events()
    [*_, begun] = until(reading, Reading)
    answered = finished(run(engine.start(ask("Hello!", key="third"), GREEDY)))
    assert answered.finish_reason == "stop"
    [end] = (event for event in reading if isinstance(event, Ready))
    assert isinstance(begun, Reading) and end.stats.new_tokens < begun.total, "it made room"


@pytest.mark.usefixtures("spare")
def test_nothing_is_read_ahead_while_the_machine_is_busy(
    open_engine: Open, draw: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine()
    assert not unread(run(engine.prefill(typed("Are there"))))
    monkeypatch.setattr(machine, "is_spare", lambda: False)
    assert unread(run(engine.prefill(typed("Are there any"))))
    picture = draw("red")
    assert not unread(run(engine.prefill(typed("Are there any", picture)))), "a picture is read all the same"


def test_two_long_prompts_are_processed_concurrently(engine: Engine) -> None:
    words = {"0": "circle ", "1": "square "}  # enough words for the second to arrive while the first is processed
    handles = {key: engine.start(ask(word * 1000, key=key), GREEDY) for key, word in words.items()}
    seen = [name for name, event in read_all(handles, lambda *_: None) if isinstance(event, Reading)]
    assert seen.index("1") < len(seen) - 1 - seen[::-1].index("0")


def test_answers_beyond_the_slots_wait_for_a_free_one(open_engine: Open) -> None:
    engine = open_engine(slots=1)
    handles = [engine.start(ask(f"Hello {n}!", key=str(n)), GREEDY) for n in range(5)]
    assert [finished(run(h)).finish_reason in ("stop", "length") for h in handles] == [True] * 5


def test_waiting_answers_report_their_place_in_the_queue(open_engine: Open) -> None:
    engine = open_engine(slots=1, eos=NO_TOKEN)
    running = engine.start(ask("Hello!", key="a"), WILD)
    assert Queued not in map(type, until(running.events(), Text))
    first = engine.start(ask("Hello!", key="b"), GREEDY).events()
    assert until(first, Queued) == [Queued(1)]
    second = engine.start(ask("Hello!", key="c"), GREEDY).events()
    assert until(second, Queued) == [Queued(2)]
    running.stop()
    assert Queued not in map(type, first)
    assert [event for event in second if isinstance(event, Queued)] == [Queued(1)]


def test_a_waiting_answer_can_be_stopped(endless: Engine) -> None:
    running = [endless.start(ask("Hello!", key=str(n)), WILD) for n in range(settings.SLOTS)]
    for handle in running:
        until(handle.events(), Text)
    waiting = endless.start(ask("Hello!"), WILD)
    waiting.stop()
    end = finished(run(waiting))
    assert (end.finish_reason, end.stats) == ("stopped", Stats())


def test_two_answers_in_the_same_conversation_run_concurrently(endless: Engine) -> None:
    first = endless.start(ask("Hello!", key="a"), WILD)
    until(first.events(), Text)
    second = endless.start(ask("Hello!", key="a"), GREEDY)
    assert finished(run(second)).stats.new_tokens == 1
    first.stop()


# Stops and errors


def test_a_stop_during_the_prompt_keeps_what_was_processed(open_engine: Open, draw: Draw) -> None:
    engine = open_engine()
    prompt = ask("circle " * 150, draw("red"), key="a")
    handle = engine.start(prompt, GREEDY)
    for event in handle.events():
        if isinstance(event, Reading) and event.done > 64:
            break
    handle.stop()
    stopped = finished(run(handle))
    assert stopped.finish_reason == "stopped"
    assert 64 < stopped.stats.prompt_tokens < 500

    again = finished(run(engine.start(prompt, GREEDY)))
    assert again.stats.cached_tokens >= stopped.stats.prompt_tokens
    assert again.tokens == finished(run(open_engine().start(prompt, GREEDY))).tokens


def test_stopping_others_takes_no_token_from_an_answer(open_engine: Open, demo: Bundle) -> None:
    endless = open_engine(eos=demo.text.eos[0] + 1)  # <image>, which the model never generates
    prompt = ask("Hello!", key="a")
    running = endless.start(prompt, replace(GREEDY, max_tokens=150))
    events = running.events()
    before = until(events, Text)
    for n in range(20):
        other = endless.start(ask("circle " * 30, key=str(n)), WILD)
        until(other.events(), Reading)
        other.stop()
    before += [*events]
    end = finished(before)
    assert (end.finish_reason, len(end.tokens)) == ("length", 150)
    # All its tokens are in the KV cache except the last, which no decode followed.
    later = finished(run(endless.start(answered(prompt, before, "And?"), GREEDY)))
    assert later.stats.cached_tokens == end.stats.prompt_tokens + 149


def test_a_prompt_that_llama_cpp_refuses_fails_without_affecting_others(endless: Engine) -> None:
    running = endless.start(ask("Hello!"), WILD)
    events = running.events()
    until(events, Text)
    earlier = (Turn("user", "Hello!"), Turn("assistant", "", tokens=(NO_TOKEN,)))
    refused = endless.start(ask("And?", turns=earlier), GREEDY)
    assert failed(run(refused)) == "engine.decode_failed"
    assert text_of(until(events, Text))
    running.stop()
    assert finished([*events]).finish_reason == "stopped"
    assert text_of(run(endless.start(ask("Hello!"), GREEDY)))


class Faulty:
    """Wraps a part of the engine; one method raises an exception that ImpChat does not expect."""

    def __init__(self, part: object, method: str) -> None:
        self._part, self._method = part, method

    def __getattr__(self, name: str) -> object:
        if name == self._method:
            raise ValueError("a fault in a library")
        return getattr(self._part, name)


@pytest.mark.parametrize("part", ["_vision", "_model", "_context"])
def test_an_unexpected_exception_ends_only_its_own_answer(engine: LocalEngine, draw: Draw, part: str) -> None:
    scheduler = engine._scheduler
    method = {"_vision": "encode", "_model": "sampler", "_context": "decode"}[part]
    whole = getattr(scheduler, part)
    setattr(scheduler, part, Faulty(whole, method))
    scheduler._eyes._vision = scheduler._vision
    code = failed(run(engine.start(ask("What colour is the circle?", draw("red")), GREEDY)))
    assert (
        code == {"_vision": "engine.vision_failed", "_model": "engine.fault", "_context": "engine.decode_failed"}[part]
    )
    setattr(scheduler, part, whole)
    scheduler._eyes._vision = scheduler._vision
    assert "red" in text_of(run(engine.start(ask("What colour is the circle?", draw("red")), GREEDY)))
    assert not engine.broken


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_engine_is_reopened_for_the_next_question(tmp_path: Path) -> None:
    with App.open(tmp_path) as app:
        first = app.engine
        assert isinstance(first, LocalEngine)
        run(first.prefill(typing()))  # what is read after loading has been read
        first._scheduler._step = Faulty(None, "")._part  # type: ignore[assignment,method-assign]
        chat = app.chat()
        broken = chat.send("Hello!").wait(20)
        assert broken.error and broken.error.code == "engine.broken"
        assert first.broken
        answer = chat.send("Hello!").wait(20)
        assert answer.state == "done"
        assert app.engine is not first


def test_answers_continue_while_a_very_long_text_is_tokenised(endless: LocalEngine) -> None:
    model = endless._scheduler._model
    tokenizing, go_on = threading.Event(), threading.Event()

    class Slow(Faulty):
        def tokenize(self, text: str, special: bool = False, /) -> list[int]:
            if "circle" in text:
                tokenizing.set()
                assert go_on.wait(20)
            return model.tokenize(text, special)

    endless._scheduler._model = Slow(model, "")  # type: ignore[assignment]
    long = endless.start(ask("circle " * 100), WILD)
    assert tokenizing.wait(20)
    other = endless.start(ask("Hello!"), WILD)
    events = other.events()
    until(events, Text)
    other.stop()
    long.stop()
    assert finished([*long.events()]).finish_reason == "stopped"
    go_on.set()


def test_a_picture_without_a_waiting_request_is_not_decoded(engine: LocalEngine, draw: Draw) -> None:
    vision = engine._scheduler._vision
    encoded: list[str] = []
    encoding, go_on = threading.Event(), threading.Event()

    class Slow(Faulty):
        def encode(self, picture: Picture) -> object:
            encoded.append(picture.sha256)
            encoding.set()
            assert go_on.wait(20)
            return vision.encode(picture)

    engine._scheduler._eyes._vision = Slow(vision, "")  # type: ignore[assignment]
    red, blue, green = draw("red"), draw("blue"), draw("green")
    first = engine.start(ask("What colour is the circle?", red), GREEDY)
    assert encoding.wait(20)
    gone = engine.prefill(typing(blue))
    events = gone.events()
    until(events, Encoding)
    gone.stop()
    go_on.set()
    assert "red" in text_of(run(first))
    assert "green" in text_of(run(engine.start(ask("What colour is the circle?", green), GREEDY)))
    assert encoded == [red.sha256, green.sha256]
    assert "blue" in text_of(run(engine.start(ask("What colour is the circle?", blue), GREEDY)))


# A conversation outgrows the context


def test_turns_that_no_longer_fit_are_dropped_together_and_reported(open_engine: Open, draw: Draw) -> None:
    engine = open_engine(context_tokens=640)
    short = replace(GREEDY, max_tokens=8)
    prompt = ask("circle " * 10, draw("red"), key="a")
    dropped: list[Dropped] = []
    while not dropped:
        events = run(engine.start(prompt, short))
        stats = finished(events).stats
        assert stats.prompt_tokens <= 640 - 640 // 4
        dropped = [e for e in events if isinstance(e, Dropped)]
        prompt = answered(prompt, events, "square " * 10)
    [first] = dropped
    assert first.turns >= 2 and first.tokens > 0
    assert events[0] == first
    assert stats.prompt_tokens > engine.info.image_tokens + 20  # the picture is still in the prompt
    assert stats.vision_s == 0  # and was not encoded again

    # The next turns are appended to the rest.
    before = stats.prompt_tokens
    events = run(engine.start(prompt, short))
    assert [e for e in events if isinstance(e, Dropped)] == [first]
    assert finished(events).stats.cached_tokens >= before


def test_an_answer_ends_when_the_context_is_full(open_engine: Open) -> None:
    engine = open_engine(eos=NO_TOKEN, context_tokens=256)
    events = run(engine.start(ask("Hello!"), WILD))
    end = finished(events)
    assert end.finish_reason == "length"
    assert end.stats.prompt_tokens + end.stats.generated_tokens == 256 + 1  # the last token was not decoded


# Answers that another engine began


def test_an_interrupted_answer_continues_with_the_same_text(open_engine: Open, draw: Draw) -> None:
    prompt = ask("What do you see?", draw("red"), key="a")
    sampling = Sampling(temperature=0, repeat_penalty=1.3, max_tokens=16)
    whole = run(open_engine().start(prompt, sampling))
    pieces = [e for e in whole if isinstance(e, Text)]
    assert len(pieces) > 5
    for cut in range(1, len(pieces) + 1):
        begun = tuple(token for piece in pieces[:cut] for token in piece.tokens)
        rest = run(open_engine().start(replace(prompt, prefix=begun), sampling))
        assert text_of([*pieces[:cut], *rest]) == text_of(whole)
        assert finished(rest).tokens == finished(whole).tokens
        assert finished(rest).finish_reason == finished(whole).finish_reason


def test_the_pieces_of_an_answer_contain_all_its_tokens(engine: Engine) -> None:
    events = run(engine.start(ask("Hello!"), GREEDY))
    assert tuple(t for e in events if isinstance(e, Text) for t in e.tokens) == finished(events).tokens


def test_a_continued_answer_without_room_ends_at_once(open_engine: Open) -> None:
    engine = open_engine(eos=NO_TOKEN, context_tokens=256)
    prompt = ask("Hello!")
    tokens = finished(run(engine.start(prompt, WILD))).tokens
    ended = run(engine.start(replace(prompt, prefix=tokens), WILD))
    assert (text_of(ended), finished(ended).finish_reason, finished(ended).tokens) == ("", "length", tokens)
    short = replace(WILD, max_tokens=8)
    ended = run(engine.start(replace(prompt, prefix=tokens[:8]), short))
    assert (text_of(ended), finished(ended).finish_reason, finished(ended).tokens) == ("", "length", tokens[:8])


# Opening and closing


def test_the_engine_describes_itself(open_engine: Open, demo: Bundle) -> None:
    info = open_engine(context_tokens=512).info
    assert (info.engine, info.model, info.context_tokens) == ("local", demo.id, 512)
    assert (info.vision, info.image_tokens, info.sampling) == (True, demo.image.tokens, demo.sampling)


@pytest.mark.parametrize("option", [{"slots": 0}, {"slots": 1000}, {"context_tokens": 10}, {"threads": 0}])
def test_an_option_out_of_range_is_refused(demo: Bundle, option: dict[str, int]) -> None:
    with pytest.raises(SettingsError) as refused:
        LocalEngine(demo, **option)
    assert next(iter(option)) in str(refused.value)


@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_broken_file_is_named_when_the_engine_is_opened(demo: Bundle, tmp_path: Path, part: str) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(demo.path, broken)
    (broken / demo.files[part].name).write_bytes(b"nothing of use")
    with pytest.raises(ModelError) as refused:
        LocalEngine(replace(demo, path=broken), threads=1)
    assert refused.value.code == "model.load_failed"
    assert demo.files[part].name in str(refused.value)


def test_a_vision_file_of_another_model_is_refused(demo: Bundle) -> None:
    with pytest.raises(ModelError) as refused:
        LocalEngine(replace(demo, image=replace(demo.image, tokens=729)), threads=1)
    assert refused.value.code == "model.parts_disagree"


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a separate process, in which `demo` is the demo bundle."""
    begin = "from impchat import paths\nfrom impchat import bundle\ndemo = bundle.load(paths.demo_bundle())\n"
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, timeout=120)


def test_a_context_that_does_not_fit_into_memory_is_reported_in_one_sentence() -> None:
    done = python("""
import resource
from impchat.engines.local.engine import LocalEngine
from impchat.errors import EngineError
LocalEngine(demo, threads=1).close()
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    LocalEngine(demo, threads=1, slots=16, context_tokens=1 << 17)
except EngineError as exc:
    print(exc.code)
LocalEngine(demo, threads=1).close()
""")
    assert (done.stdout, done.stderr, done.returncode) == ("engine.out_of_memory\n", "", 0)


def test_a_process_can_exit_while_an_answer_runs() -> None:
    done = python("""
from dataclasses import replace
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Prompt, Sampling, Turn
engine = LocalEngine(replace(demo, text=replace(demo.text, eos=(2**31 - 1,))), threads=1)
events = engine.start(Prompt("", (Turn("user", "Hello!"),)), Sampling(max_tokens=8192)).events()
print(type(next(events)).__name__)
""")
    assert (done.stdout, done.stderr, done.returncode) == ("Reading\n", "", 0)


def test_neither_llama_cpp_nor_onnxruntime_prints(demo: Bundle, draw: Draw) -> None:
    done = python("""
import hashlib, io
from pathlib import Path
from PIL import Image
from dataclasses import replace
from impchat.engines.local.engine import LocalEngine
from impchat.errors import ModelError
from impchat.messages import Picture, Prompt, Sampling, Turn
engine = LocalEngine(demo, threads=1)
out = io.BytesIO()
Image.new("RGB", (50, 50), "red").save(out, "PNG")
for tokens in ((1, 2), (2**31 - 1,)):
    turns = (Turn("user", "", (Picture("x", out.getvalue()),)), Turn("assistant", "", tokens=tokens), Turn("user", "?"))
    handle = engine.start(Prompt("", turns), Sampling(max_tokens=4))
    list(handle.events())
handle = engine.start(Prompt("", (Turn("user", "circle " * 100),)), Sampling(max_tokens=4))
next(handle.events())
handle.stop()
engine.close()
for part in ("language", "vision"):
    try:
        LocalEngine(replace(demo, files=demo.files | {part: replace(demo.files[part], name="impchat.json")}))
    except ModelError:
        pass
""")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_an_unreferenced_engine_closes_itself(open_engine: Open, demo: Bundle) -> None:
    engine = LocalEngine(replace(demo, text=replace(demo.text, eos=(NO_TOKEN,))), threads=1)
    handle = engine.start(ask("Hello!"), WILD)
    events = handle.events()
    until(events, Text)
    del engine
    gc.collect()
    assert finished([*events]).finish_reason == "stopped"


def test_simultaneous_closing_from_several_threads_works(open_engine: Open) -> None:
    engine = open_engine(eos=NO_TOKEN)
    handle = engine.start(ask("Hello!"), WILD)
    closers = [threading.Thread(target=engine.close) for _ in range(4)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
    assert finished(run(handle)).finish_reason == "stopped"
