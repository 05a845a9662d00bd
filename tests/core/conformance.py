"""The conformance suite: the same tests for every implementation of the engine protocol.

A test file of an engine subclasses `EngineConformance` and provides its two fixtures.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from impchat import settings, texts
from impchat.engines import Engine, Handle
from impchat.messages import (
    Encoding,
    Event,
    Failed,
    Finished,
    Picture,
    Prompt,
    Reading,
    Ready,
    Sampling,
    Text,
    Turn,
)
from tests.core.conftest import Draw

GREEDY = Sampling(temperature=0, max_tokens=24)
WILD = Sampling(temperature=2, top_k=0, top_p=1, min_p=0, seed=1, max_tokens=8192)  # long, random text


def ask(text: str, *pictures: Picture, key: str = "", turns: tuple[Turn, ...] = ()) -> Prompt:
    """A prompt with a question after the earlier `turns`."""
    return Prompt(settings.SYSTEM, (*turns, Turn("user", text, pictures)), key)


def run(handle: Handle) -> list[Event]:
    """Return all events of `handle`."""
    return [*handle.events()]


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Text))


def finished(events: list[Event]) -> Finished:
    """Return the Finished event of an answer that did not fail."""
    end = events[-1]
    assert isinstance(end, Finished), end
    return end


def failed(events: list[Event]) -> str:
    """Return the code of the error that ended the answer, and check that it has a message in every language."""
    end = events[-1]
    assert isinstance(end, Failed), end
    for language in texts.LANGUAGES:
        assert texts.say(f"error.{end.code}", language, **end.values)
    return end.code


def until(events: Iterator[Event], kind: type[Event]) -> list[Event]:
    """Return the events up to and including the first of `kind`; the iterator can be read on after it."""
    seen = []
    for event in events:
        seen.append(event)
        if isinstance(event, kind):
            break
    return seen


class EngineConformance:
    """The suite. Its engines run the demo model."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        """A new engine of the demo model, closed after the test."""
        raise NotImplementedError

    @pytest.fixture
    def endless(self) -> Iterator[Engine]:
        """The same, but the model cannot end an answer: only max_tokens, the context or a stop does."""
        raise NotImplementedError

    def test_a_question_is_answered_in_pieces_that_join_to_the_answer(self, engine: Engine) -> None:
        events = run(engine.start(ask("Hello!"), GREEDY))
        assert finished(events).finish_reason in ("stop", "length")
        assert text_of(events)
        assert all(e.text for e in events if isinstance(e, Text))

    def test_a_picture_is_encoded_before_its_question_is_answered(self, engine: Engine, draw: Draw) -> None:
        picture = draw("red")
        events = run(engine.start(ask("What is it?", picture), GREEDY))
        kinds = [type(e) for e in events]
        assert events.count(Encoding(picture.sha256)) == 1
        assert kinds.index(Encoding) < kinds.index(Text)
        stats = finished(events).stats
        assert stats.vision_s > 0
        assert stats.prompt_tokens > engine.info.image_tokens

    def test_reading_progress_goes_from_zero_to_the_total(self, engine: Engine, draw: Draw) -> None:
        unread = replace(ask("What is it? " * 20, draw("red")), system="A system text that no other test has.")
        events = run(engine.start(unread, GREEDY))
        progress = [e for e in events if isinstance(e, Reading)]
        total = finished(events).stats.new_tokens
        assert {e.total for e in progress} == {total}
        assert progress[0].done == 0 and progress[-1].done == total
        assert [e.done for e in progress] == sorted({e.done for e in progress})
        assert len(progress) > 3

    def test_the_counts_of_an_answer_add_up(self, engine: Engine, draw: Draw) -> None:
        stats = finished(run(engine.start(ask("What is it?", draw("red")), GREEDY))).stats
        assert stats.prompt_tokens == stats.cached_tokens + stats.new_tokens
        assert 0 < stats.generated_tokens <= GREEDY.max_tokens
        assert stats.prefill_s > 0 and stats.decode_s > 0
        assert stats.first_token_s > stats.prefill_s

    def test_a_prefill_ends_with_ready_and_yields_no_text(self, engine: Engine, draw: Draw) -> None:
        prompt = Prompt(settings.SYSTEM, (Turn("user", "", (draw("red"),)),), "a", open_turn=True)
        events = run(engine.prefill(prompt))
        assert isinstance(events[-1], Ready)
        assert not text_of(events)

    def test_an_answer_is_at_most_max_tokens_long(self, endless: Engine) -> None:
        end = finished(run(endless.start(ask("Hello!"), Sampling(temperature=0, max_tokens=3))))
        assert (end.finish_reason, end.stats.generated_tokens) == ("length", 3)

    def test_an_answer_ends_before_a_stop_string(self, engine: Engine) -> None:
        whole = text_of(run(engine.start(ask("Hello!"), GREEDY)))
        assert len(whole) > 6
        stop = whole[3:6]
        events = run(engine.start(ask("Hello!"), Sampling(temperature=0, max_tokens=24, stop=("never", stop))))
        assert finished(events).finish_reason == "stop"
        assert text_of(events) == whole[: whole.index(stop)]

    def test_greedy_answers_are_the_same_each_time(self, engine: Engine, draw: Draw) -> None:
        prompt = ask("What is it?", draw("red"))
        assert text_of(run(engine.start(prompt, GREEDY))) == text_of(run(engine.start(prompt, GREEDY)))

    def test_a_seed_repeats_its_answer(self, engine: Engine) -> None:
        def answer(seed: int) -> str:
            wild = Sampling(temperature=2, top_k=0, top_p=1, min_p=0, seed=seed, max_tokens=16)
            return text_of(run(engine.start(ask("Hello!"), wild)))

        assert answer(1) == answer(1)
        assert len({answer(seed) for seed in range(4)}) > 1

    def test_an_answer_has_no_space_before_it(self, engine: Engine) -> None:
        text = text_of(run(engine.start(ask("Hello!"), GREEDY)))
        assert text == text.lstrip(" ")

    def test_a_stopped_answer_keeps_its_text(self, endless: Engine) -> None:
        handle = endless.start(ask("Hello!"), WILD)
        events = handle.events()
        before = until(events, Text)
        handle.stop()
        after = [*events]
        assert finished(after).finish_reason == "stopped"
        assert text_of(before)
        assert finished(after).stats.generated_tokens > 0

    def test_a_stopped_prefill_reports_the_stop(self, engine: Engine, draw: Draw) -> None:
        prompt = Prompt(settings.SYSTEM, (Turn("user", "", (draw("red"),)),), "a", open_turn=True)
        handle = engine.prefill(prompt)
        handle.stop()
        assert finished(run(handle)).finish_reason == "stopped"

    def test_a_finished_handle_can_be_stopped_again(self, engine: Engine) -> None:
        handle = engine.start(ask("Hello!"), GREEDY)
        events = run(handle)
        handle.stop()
        handle.stop()
        assert isinstance(events[-1], Finished)
        assert run(handle) == []

    def test_simultaneous_questions_are_all_answered(self, engine: Engine, draw: Draw) -> None:
        prompts = [ask("What is it?", draw("red")), ask("Hello!"), ask("How many shapes are there?", draw("blue"))] * 2
        ends: list[Finished] = []
        readers = [
            threading.Thread(target=lambda h=handle: ends.append(finished(run(h))))
            for handle in [engine.start(prompt, GREEDY) for prompt in prompts]
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert [e.finish_reason in ("stop", "length") for e in ends] == [True] * len(prompts)

    @pytest.mark.parametrize("turns", [(), (Turn("assistant", "Hello."),)])
    def test_a_prompt_without_a_question_is_refused(self, engine: Engine, turns: tuple[Turn, ...]) -> None:
        assert failed(run(engine.start(Prompt("", turns), GREEDY))) == "prompt.no_question"
        assert failed(run(engine.prefill(Prompt("", turns)))) == "prompt.no_question"

    def test_an_answer_that_has_begun_continues_after_its_last_word(self, engine: Engine, draw: Draw) -> None:
        asked = Turn("user", "Describe the picture.", (draw("red"),))
        events = run(engine.start(Prompt("", (asked,), "a"), GREEDY))
        first = next(event for event in events if isinstance(event, Text))
        begun = Turn("assistant", first.text, tokens=first.tokens or None)
        assert first.text + text_of(run(engine.start(Prompt("", (asked, begun), "a"), GREEDY))) == text_of(events)

    def test_a_question_longer_than_the_context_is_refused(self, engine: Engine) -> None:
        assert failed(run(engine.start(ask("word " * 5 * engine.info.context_tokens), GREEDY))) == "prompt.too_long"

    def test_an_unusable_picture_fails_its_own_prompt_only(self, engine: Engine, draw: Draw) -> None:
        broken = engine.start(ask("What is it?", Picture("0" * 64, b"no picture")), GREEDY)
        whole = engine.start(ask("What is it?", draw("red")), GREEDY)
        assert failed(run(broken)) == "image.not_an_image"
        assert text_of(run(whole))

    @pytest.mark.parametrize(
        "sampling",
        [
            Sampling(temperature=-1),
            Sampling(temperature=float("nan")),
            Sampling(top_k=-1),
            Sampling(top_p=1.1),
            Sampling(min_p=-0.1),
            Sampling(repeat_penalty=0),
            Sampling(max_tokens=0),
        ],
    )
    def test_a_setting_out_of_range_is_refused(self, engine: Engine, sampling: Sampling) -> None:
        assert failed(run(engine.start(ask("Hello!"), sampling))) == "option.out_of_range"

    def test_every_event_can_cross_a_process(self, engine: Engine, draw: Draw) -> None:
        events = run(engine.start(ask("What is it?", draw("red")), GREEDY))
        events += run(engine.start(Prompt("", ()), GREEDY))
        assert pickle.loads(pickle.dumps(events)) == events

    def test_closing_stops_running_requests_and_refuses_new_ones(self, endless: Engine) -> None:
        running = endless.start(ask("Hello!"), WILD)
        events = running.events()
        until(events, Text)
        waiting = [endless.start(ask("Hello!"), WILD) for _ in range(4)]
        endless.close()
        endless.close()
        assert finished([*events]).finish_reason == "stopped"
        assert [finished(run(h)).finish_reason for h in waiting] == ["stopped"] * 4
        assert failed(run(endless.start(ask("Hello!"), GREEDY))) == "engine.closed"
        assert failed(run(endless.prefill(ask("Hello!")))) == "engine.closed"
