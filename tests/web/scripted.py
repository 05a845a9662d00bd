"""An engine whose words and pace a test writes, for what a real one does too fast to be seen: stopping, reloading.

In: prompts. Out: the given pieces, each after the test has let it go. Everything around it is the real thing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from impchat.engines import EngineInfo
from impchat.errors import EngineError
from impchat.messages import Encoding, Event, Failed, Finished, Prompt, Reading, Ready, Sampling, Stats, Text


class ScriptedHandle:
    def __init__(self, engine: ScriptedEngine, pieces: list[str] | None) -> None:
        self._engine = engine
        self._pieces = pieces
        self._stopped = threading.Event()

    def events(self) -> Iterator[Event]:
        if self._engine.failure is not None:
            yield Failed(self._engine.failure.code, self._engine.failure.values)
            return
        if self._pieces is None:
            yield Encoding("")
            yield Reading(50, 200)
            self._engine.may_read.wait()
            yield Reading(200, 200)
            yield Ready(Stats(prompt_tokens=200, new_tokens=200))
            return
        said = 0
        for piece in self._pieces:
            while not (self._engine.let_go(said) or self._stopped.is_set()):
                self._engine.changed(said, self._stopped)
            if self._stopped.is_set():
                yield Finished("stopped", Stats(250, 200, 50, said, first_token_s=0.2, decode_s=0.5))
                return
            said += 1
            yield Text(piece)
        yield Finished("stop", Stats(250, 200, 50, said, first_token_s=0.21, decode_s=said / 38))

    def stop(self) -> None:
        self._stopped.set()
        self._engine.wake()


class ScriptedEngine:
    """`pieces` are said to every question. Only the first `allowed` are let go; None lets all go at once."""

    def __init__(self, pieces: list[str], allowed: int | None = None) -> None:
        self.pieces = pieces
        self.failure: EngineError | None = None
        self.may_read = threading.Event()
        self.may_read.set()
        self._allowed = allowed
        self._condition = threading.Condition()

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("scripted", "scripted", 2048, True, 196, Sampling())

    def allow(self, pieces: int | None) -> None:
        with self._condition:
            self._allowed = pieces
            self._condition.notify_all()

    def let_go(self, said: int) -> bool:
        return self._allowed is None or said < self._allowed

    def changed(self, said: int, stopped: threading.Event) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self.let_go(said) or stopped.is_set())

    def wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def prefill(self, prompt: Prompt) -> ScriptedHandle:
        return ScriptedHandle(self, None)

    def start(self, prompt: Prompt, sampling: Sampling) -> ScriptedHandle:
        return ScriptedHandle(self, self.pieces)

    def close(self) -> None:
        self.allow(None)
        self.may_read.set()
