"""What an engine is: prompts go in, events come out.

In: a `Prompt` and a `Sampling`. Out: a `Handle` whose events are read by one reader (`impchat.answer` is it).
This file does not know any engine; `local`, `remote`, `torch` and `process` each hold one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from impchat import settings
from impchat.errors import SettingsError
from impchat.messages import Event, Prompt, Sampling


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a front end may say about the engine in use."""

    engine: str  # "local", "remote", ...
    model: str  # bundle id or remote model name
    context_tokens: int  # most prompt + answer tokens of one conversation; 0 where unknown
    vision: bool  # takes pictures
    image_tokens: int  # context tokens that one picture takes; 0 where unknown
    sampling: Sampling  # what the model's manifest recommends
    server: str = ""  # who answers; "": this machine


class Handle(Protocol):
    """A running prefill or answer."""

    def events(self) -> Iterator[Event]:
        """The events as they happen; blocks between them. A prefill ends with Ready, an answer with Finished,
        either with Failed. A stopped prefill ends with Finished("stopped"). To be read once, by one thread."""
        ...

    def stop(self) -> None:
        """End it within 100 ms, also in the middle of a prefill. May be called from any thread, more than once."""
        ...


class Engine(Protocol):
    """Reads prompts and answers them. All methods may be called from any thread and return at once."""

    @property
    def info(self) -> EngineInfo: ...

    def prefill(self, prompt: Prompt) -> Handle:
        """Read `prompt` into the KV cache of `prompt.key` and generate nothing."""
        ...

    def start(self, prompt: Prompt, sampling: Sampling) -> Handle:
        """Answer `prompt`. Bad input (no turn, an unusable picture) comes back as a Failed event."""
        ...

    def close(self) -> None:
        """Stop everything that runs and free the model. Running handles end with Finished("stopped")."""
        ...


def check_sampling(sampling: Sampling) -> None:
    """Raises SettingsError "option.out_of_range" for the first value outside `settings.SAMPLING_RANGES`."""
    for name, (low, high) in settings.SAMPLING_RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:  # a NaN lies in no range
            raise SettingsError("option.out_of_range", option=name, value=value, low=low, high=high)
