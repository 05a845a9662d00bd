"""`impchat bench chat`: what a person waits for in a conversation about one picture.

In: a bundle. Out: the time from sending to the first token without a pause, after a pause, and if the question was read
while it was typed; in ten turns; about the same picture in another chat; and after a restart. Also the share of Python
in a generated token.
This file does not know how answers are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impchat import settings, speedtest
from impchat.app import App
from impchat.bench import asking
from impchat.bench.asking import Questions, Tell, Timed
from impchat.bench.report import Collector, Figure
from impchat.bundle import Bundle
from impchat.chat import Chat
from impchat.deferred import Attachment
from impchat.history.archive import export_zip, import_zip
from impchat.messages import Ready

QUESTION_TOKENS = 12
ANSWER_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Pace:
    """How the person behaves."""

    turns: int = 10
    think_s: float = 6.0  # between attaching the picture or the end of an answer and the first letter or sending
    characters_per_s: float = 5.0  # typing
    rest_s: float = 4.0  # from the last answer to closing ImpChat: enough for what it saves when idle


def run(bundle: Bundle, rounds: int, tell: Tell, pace: Pace = Pace()) -> list[Figure]:
    """Measure in `rounds` rounds, each with a data folder of its own. Raises the ImpChatError that ended an answer."""
    questions, found = Questions(bundle), Collector()
    for number in range(1, rounds + 1):

        def step(key: str, number: int = number) -> None:
            tell(key, round=number, rounds=rounds)

        with asking.folder() as data:
            _round(bundle, data, questions, found, step, pace)
    return found.figures


def _round(
    bundle: Bundle, data: Path, questions: Questions, found: Collector, tell: Callable[[str], None], pace: Pace
) -> None:
    pictures = [speedtest.fresh_picture().data for _ in range(3)]

    def ask(app: App, chat: Chat) -> Timed:
        return asking.send(app, chat, questions.of(QUESTION_TOKENS), ANSWER_TOKENS)

    tell("bench.step.hurried")
    begun = time.perf_counter()
    with asking.opened(bundle, data / "first") as app:
        found.add("open", time.perf_counter() - begun)
        hurried = app.chat()
        attach_s = _attach(hurried, pictures[0])[1]
        turns, outside_s = [], 0.0
        for _ in range(pace.turns):
            with native_seconds() as native:
                turns.append(ask(app, hurried))
            outside_s += turns[-1].stats.decode_s - native.generating_s
        decode_s = sum(turn.stats.decode_s for turn in turns)
        found.add("first_token_cold", attach_s + turns[0].first_s)
        found.add("follow_up_2", turns[1].first_s)
        found.add("follow_up_last", turns[-1].first_s)
        found.add("follow_up_growth", turns[-1].first_s / turns[1].first_s, "times")
        if decode_s:  # a model may say nothing
            found.add("generation_speed", sum(max(turn.tokens - 1, 0) for turn in turns) / decode_s, "tokens/s")
            found.add("python_share", max(outside_s, 0.0) / decode_s, "share")

        tell("bench.step.thinking")
        pausing = app.chat()
        begun = time.perf_counter()
        asking.ready(pausing.attach(pictures[1]))
        found.add("attach_ready", time.perf_counter() - begun)
        time.sleep(max(0.0, begun + pace.think_s - time.perf_counter()))
        found.add("first_token_thought", ask(app, pausing).first_s)

        tell("bench.step.typing")
        typing = app.chat()
        begun = time.perf_counter()
        asking.ready(typing.attach(pictures[2]))
        time.sleep(max(0.0, begun + pace.think_s - time.perf_counter()))
        typed = []
        for _ in range(pace.turns):
            question = questions.of(QUESTION_TOKENS)
            asking.type_slowly(typing, question, pace.characters_per_s)
            typed.append(asking.send(app, typing, question, ANSWER_TOKENS))
        found.add("first_token_typed", typed[0].first_s)
        found.add("follow_up_typed_2", typed[1].first_s)
        found.add("follow_up_typed_last", typed[-1].first_s)

        tell("bench.step.again")
        _same_picture(app, pictures[2], ask, found, "same_picture")
        time.sleep(pace.rest_s)
        assert hurried.conversation
        archive = export_zip(app.history, hurried.conversation, settings.OWNER)

    tell("bench.step.restart")
    with asking.opened(bundle, data / "first") as app:
        reopened = ask(app, app.chat(hurried.conversation))
        _same_picture(app, pictures[1], ask, found, "same_picture_restart")
    with asking.opened(bundle, data / "second") as app:  # a data folder that knows nothing of the conversation
        anew = ask(app, app.chat(import_zip(app.history, archive, settings.OWNER).uuid))
    found.add("reopened", reopened.first_s)
    found.add("reopened_tokens", reopened.stats.new_tokens, "tokens")
    found.add("read_again", anew.first_s)
    found.add("read_again_tokens", anew.stats.new_tokens, "tokens")
    found.add("reopened_part", reopened.first_s / anew.first_s, "times")


def _same_picture(app: App, picture: bytes, ask: Callable[[App, Chat], Timed], found: Collector, name: str) -> None:
    """Ask about a picture in a new chat that was already asked about in another one."""
    chat = app.chat()
    attachment, attach_s = _attach(chat, picture)
    answer = ask(app, chat)
    attachment.settled.wait()
    read_ahead = attachment.progress.end
    vision_s = read_ahead.stats.vision_s if isinstance(read_ahead, Ready) else 0.0
    found.add(name, attach_s + answer.first_s)
    found.add(f"{name}_vision", vision_s + answer.stats.vision_s)


def _attach(chat: Chat, picture: bytes) -> tuple[Attachment, float]:
    """Attach `picture`. Returns the attachment, which is being read, and the seconds that attaching took."""
    begun = time.perf_counter()
    return chat.attach(picture), time.perf_counter() - begun


class NativeSeconds:
    """When llama.cpp computed and sampled during one answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, float]] = []  # method, begin, end (time.perf_counter)

    @property
    def generating_s(self) -> float:
        """Seconds in llama.cpp from after the first token was sampled to the last one."""
        picks = [n for n, (method, _, _) in enumerate(self.calls) if method == "pick"]
        generating = self.calls[picks[0] + 1 : picks[-1] + 1] if picks else []
        return sum(end - begin for _, begin, end in generating)


@contextmanager
def native_seconds() -> Iterator[NativeSeconds]:
    """Record the calls of `llama.Context.decode` and `llama.Sampler.pick` in the block."""
    from impchat.engines.local import llama

    found = NativeSeconds()

    def recorded(method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                found.calls.append((method, begin, time.perf_counter()))

        return run

    decode, pick = llama.Context.decode, llama.Sampler.pick
    llama.Context.decode = recorded("decode", decode)  # type: ignore[method-assign]
    llama.Sampler.pick = recorded("pick", pick)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        llama.Context.decode = decode  # type: ignore[method-assign]
        llama.Sampler.pick = pick  # type: ignore[method-assign]
