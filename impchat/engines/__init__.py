"""The interface of an engine: prompts in, events out.

In: a `Prompt` and a `Sampling`. Out: a `Handle`, whose events have one reader (`impchat.answer`).
This file does not know any implementation.
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
    """What a front end may show about the engine in use."""

    engine: str  # "local", "remote", ...
    model: str  # bundle id or remote model name
    context_tokens: int  # maximum of prompt + answer tokens of one conversation; 0: unknown
    vision: bool  # whether it accepts pictures
    image_tokens: int  # context tokens that one picture takes; 0: unknown
    sampling: Sampling  # the values recommended for the model
    server: str = ""  # name of the server that answers; "": this machine
    unverified: bool = False  # a server reports that its model is unverified (`Bundle.unverified`)


class Handle(Protocol):
    """A running prefill or answer."""

    def events(self) -> Iterator[Event]:
        """Yield the events as they happen; blocks between them. A prefill ends with Ready, an answer with Finished,
        either of them with Failed on error. A stopped prefill ends with Finished("stopped"). Read it once, from one
        thread."""
        ...

    def stop(self) -> None:
        """End it within 100 ms, even during a prefill. May be called from any thread, and more than once."""
        ...


class Engine(Protocol):
    """Reads prompts and answers them. All methods may be called from any thread and return at once."""

    @property
    def info(self) -> EngineInfo: ...

    def prefill(self, prompt: Prompt) -> Handle:
        """Read `prompt` into the KV cache of `prompt.key` and generate nothing."""
        ...

    def start(self, prompt: Prompt, sampling: Sampling) -> Handle:
        """Answer `prompt`. Invalid input (no turn, an unusable picture) is reported as a Failed event."""
        ...

    def close(self) -> None:
        """Stop all requests and free the model. Running handles end with Finished("stopped")."""
        ...


def check_sampling(sampling: Sampling) -> None:
    """Raises SettingsError "option.out_of_range" for the first value outside `settings.SAMPLING_RANGES`."""
    for name, (low, high) in settings.SAMPLING_RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:  # NaN is in no range
            raise SettingsError("option.out_of_range", option=name, value=value, low=low, high=high)
