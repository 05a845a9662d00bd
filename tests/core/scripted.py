"""An engine whose events a test supplies one by one, to test Answer and Chat while an engine runs.

Tests of the answers themselves use the demo model instead (test_app, test_cli).
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from impchat.engines import EngineInfo
from impchat.messages import Event, Failed, Finished, Prompt, Ready, Sampling, Stats, Text

SECONDS = 20.0  # a limit far above normal durations; it is reached only by a failure


class Script:
    """A running prefill or answer: the events passed to `say` come out of `events`."""

    def __init__(self, prompt: Prompt, sampling: Sampling | None) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.stopped = False
        self._events: queue.SimpleQueue[Event | Exception | None] = queue.SimpleQueue()

    def say(self, *events: Event | str) -> None:
        for event in events:
            self._events.put(Text(event) if isinstance(event, str) else event)

    def finish(self, *events: Event | str, tokens: tuple[int, ...] = (), **stats: float) -> None:
        self.say(*events, Finished("stop", Stats(**stats), tokens))  # type: ignore[arg-type]

    def crash(self, error: Exception) -> None:
        self._events.put(error)

    def break_off(self) -> None:
        self._events.put(None)

    def events(self) -> Iterator[Event]:
        while True:
            event = self._events.get(timeout=SECONDS)
            if event is None:
                return
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Ready | Finished | Failed):
                return

    def stop(self) -> None:
        self.stopped = True
        self.say(Finished("stopped", Stats()))


@dataclass
class ScriptedEngine:
    """Passes each prefill and each start to the test, in order."""

    on_start: Callable[[Prompt], None] = lambda prompt: None
    scripts: queue.SimpleQueue[Script] = field(default_factory=queue.SimpleQueue)
    typed: list[str] = field(default_factory=list)  # the words of questions that were read while they were typed
    _pictures: set[str] = field(default_factory=set)
    closed: bool = False

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("scripted", "scripted-1", 2048, True, 196, Sampling(temperature=0.0))

    def prefill(self, prompt: Prompt) -> Script:
        pictures = {picture.sha256 for turn in prompt.turns for picture in turn.pictures}
        new, self._pictures = pictures - self._pictures, self._pictures | pictures
        words = prompt.turns[-1].text if prompt.open_turn else ""
        if words and not new:  # tests that type a question do not expect a script
            self.typed.append(words)
            script = Script(prompt, None)
            script.say(Ready(Stats()))
            return script
        return self._script(prompt, None)

    def start(self, prompt: Prompt, sampling: Sampling) -> Script:
        self.on_start(prompt)
        return self._script(prompt, sampling)

    def _script(self, prompt: Prompt, sampling: Sampling | None) -> Script:
        script = Script(prompt, sampling)
        self.scripts.put(script)
        return script

    def next(self) -> Script:
        """Wait for the next prefill or start."""
        return self.scripts.get(timeout=SECONDS)

    def idle(self) -> bool:
        """Whether the test has taken all prefills and starts."""
        return self.scripts.empty()

    def close(self) -> None:
        self.closed = True
