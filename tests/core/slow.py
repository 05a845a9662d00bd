"""An engine as slow as a large model on a small machine, to test what pages and phones show meanwhile.

The demo model answers too fast to show most states. This engine takes `reading_s` to process a prompt with pictures,
then yields `words_per_s` words, and fails if a test sets `failure`. Its answers are the given text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from impchat.engines import EngineInfo
from impchat.messages import Encoding, Event, Failed, Finished, Prompt, Reading, Ready, Sampling, Stats, Text

ANSWER = "This picture shows a **red** circle, and it is drawn slowly so that every state can be seen."


class SlowHandle:
    """A prefill or an answer, one event at a time."""

    def __init__(self, engine: SlowEngine, prompt: Prompt, answers: bool) -> None:
        self._engine = engine
        self._prompt = prompt
        self._answers = answers
        self._stopped = threading.Event()

    def events(self) -> Iterator[Event]:
        engine, begun = self._engine, time.monotonic()
        failure, text = engine.failure, engine.answer  # those of its start: a test may change them for the next one
        pictures = [picture for turn in self._prompt.turns for picture in turn.pictures]
        steps = 10
        for picture in pictures:
            yield Encoding(picture.sha256)
        for step in range(steps if engine.reads(self._prompt) else 0):
            yield Reading(step * 20, steps * 20)
            if self._stopped.wait(engine.reading_s / steps):
                yield Finished("stopped", Stats())
                return
        if not self._answers:
            yield failure if failure and engine.fails_reading else Ready(Stats(prompt_tokens=200, new_tokens=200))
            return
        first_s = time.monotonic() - begun
        spoken = 0
        for spoken, word in enumerate(text.split(" ")):
            if failure and spoken == engine.fails_after_words:
                yield failure
                return
            while engine.pauses_after_words == spoken and not self._stopped.wait(0.02):
                continue
            if self._stopped.wait(1 / engine.words_per_s):
                break
            yield Text(word if spoken == 0 else f" {word}")
        stats = Stats(
            prompt_tokens=240,
            new_tokens=240,
            generated_tokens=spoken,
            decode_s=spoken / engine.words_per_s,
            first_token_s=first_s,
        )
        yield Finished("stopped" if self._stopped.is_set() else "stop", stats)

    def stop(self) -> None:
        self._stopped.set()


@dataclass
class SlowEngine:
    """By default five words a second after two seconds of reading; its fields can be changed while it runs."""

    answer: str = ANSWER
    words_per_s: float = 5.0
    reading_s: float = 2.0
    failure: Failed | None = None  # how the next answer ends, after `fails_after_words` words
    fails_after_words: int = 0
    pauses_after_words: int = -1  # goes on when this is changed, or is stopped there
    fails_reading: bool = False  # a prefill ends with `failure` too
    closed: bool = False
    prompts: list[Prompt] = field(default_factory=list)  # of the answers, in order
    _read: set[tuple[str, int]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("slow", "slow-1", 2048, True, 196, Sampling(temperature=0.0))

    def reads(self, prompt: Prompt) -> bool:
        """Whether the pictures of this prompt are new; they count as read from now on."""
        key = (prompt.key, sum(len(turn.pictures) for turn in prompt.turns))
        with self._lock:
            new = key[1] > 0 and key not in self._read
            self._read.add(key)
        return new

    def prefill(self, prompt: Prompt) -> SlowHandle:
        return SlowHandle(self, prompt, answers=False)

    def start(self, prompt: Prompt, sampling: Sampling) -> SlowHandle:
        self.prompts.append(prompt)
        return SlowHandle(self, prompt, answers=True)

    def close(self) -> None:
        self.closed = True
