"""The base class of engines on this machine: an `Engine` on top of a scheduler.

In: an `EngineInfo` and a scheduler. Out: the methods of an `Engine`.
This file does not know models.
"""

from __future__ import annotations

import atexit
import weakref

from impchat import settings
from impchat.engines import EngineInfo
from impchat.engines.local.request import LocalHandle, Request
from impchat.engines.local.scheduler import Scheduler
from impchat.errors import SettingsError
from impchat.messages import Prompt, Sampling

_MOST_SLOTS = 64  # llama.cpp's own limit on sequences is not lower in any version


class ScheduledEngine:
    """An Engine on top of a scheduler. It closes itself when it is garbage-collected."""

    def __init__(self, info: EngineInfo, scheduler: Scheduler) -> None:
        self._info = info
        self._scheduler = scheduler
        # The interpreter must not exit while the model runs, and an engine without references must not keep running.
        atexit.register(self._scheduler.close)
        weakref.finalize(self, _drop, self._scheduler).atexit = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def broken(self) -> bool:
        """Whether a bug in ImpChat or a library has ended it. Every request then fails; open a new engine."""
        return self._scheduler.broken

    def prefill(self, prompt: Prompt) -> LocalHandle:
        """Read `prompt` into the KV cache and generate nothing. A beginning that another request is reading is shared,
        not read twice."""
        return self._scheduler.submit(Request(prompt, None))

    def start(self, prompt: Prompt, sampling: Sampling) -> LocalHandle:
        """Answer `prompt`. If another request is reading the same beginning, this one waits and continues from
        there."""
        return self._scheduler.submit(Request(prompt, sampling))

    def close(self) -> None:
        """Stop all requests and free the model. May be called more than once."""
        self._scheduler.close()
        atexit.unregister(self._scheduler.close)


def check_sizes(slots: int, context_tokens: int, threads: int) -> None:
    """Raises SettingsError "option.out_of_range" for the first value that is out of range."""
    for name, value, low, high in (
        ("slots", slots, 1, _MOST_SLOTS),
        ("context_tokens", context_tokens, 4 * settings.ANSWER_LEAST_TOKENS, 2**20),
        ("threads", threads, 1, 512),
    ):
        if not low <= value <= high:
            raise SettingsError("option.out_of_range", option=name, value=value, low=low, high=high)


def _drop(scheduler: Scheduler) -> None:
    atexit.unregister(scheduler.close)
    scheduler.abandon()
