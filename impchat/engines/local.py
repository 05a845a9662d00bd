"""A bundle on this machine: llama.cpp and onnxruntime, several conversations at once, nothing read twice.

In: a bundle; prompts, from any thread. Out: their events. This file loads the model and checks what it is asked to
load; `scheduler` does the work.
"""

from __future__ import annotations

import atexit
import weakref

from impchat import settings
from impchat.engines import EngineInfo
from impchat.engines.llama import Context, Model, default_threads
from impchat.engines.request import LocalHandle, Request
from impchat.engines.scheduler import Scheduler
from impchat.engines.vision import OnnxVision
from impchat.errors import ImpChatError, ModelError, SettingsError
from impchat.messages import Prompt, Sampling
from impchat.models.bundle import Bundle

_MOST_SLOTS = 64  # llama.cpp's own limit on sequences is not lower in any version


def threads_for(bundle: Bundle) -> int:
    """How many threads a LocalEngine of `bundle` takes: all that it may use, one for a model too small for more."""
    return default_threads() if bundle.size_bytes >= settings.SMALL_MODEL_BYTES else 1


class LocalEngine:
    """The Engine of a bundle. Takes `slots` conversations at a time, others wait; each keeps its KV cache until its
    slot is needed for another one. An engine that nobody holds any more closes itself."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        slots: int = settings.SLOTS,
        context_tokens: int | None = None,
        threads: int | None = None,
    ) -> None:
        """`context_tokens`: of each conversation; None: the bundle's. `threads`: None: as many as processors, one for
        a model below `settings.SMALL_MODEL_BYTES`.

        Loads the model. Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError
        "engine.out_of_memory" or "engine.not_installed", SettingsError "option.out_of_range"."""
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        if threads is None:
            threads = threads_for(bundle)
        least = 4 * settings.ANSWER_LEAST_TOKENS
        for name, value, low, high in (
            ("slots", slots, 1, _MOST_SLOTS),
            ("context_tokens", context_tokens, least, 2**20),
            ("threads", threads, 1, 512),
        ):
            if not low <= value <= high:
                raise SettingsError("option.out_of_range", option=name, value=value, low=low, high=high)
        self._info = EngineInfo("local", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        self._scheduler = _load(bundle, slots, context_tokens, threads)
        # The interpreter must not end while llama.cpp works; and an engine that is dropped must not run on.
        atexit.register(self._scheduler.close)
        weakref.finalize(self, _drop, self._scheduler).atexit = False

    @property
    def info(self) -> EngineInfo:
        return self._info

    def prefill(self, prompt: Prompt) -> LocalHandle:
        """Read `prompt` into the KV cache and generate nothing. What another prompt is just reading is shared."""
        return self._scheduler.submit(Request(prompt, None))

    def start(self, prompt: Prompt, sampling: Sampling) -> LocalHandle:
        """Answer `prompt`. Where its beginning is just being read, by a prefill or for someone else, it waits and goes
        on from there."""
        return self._scheduler.submit(Request(prompt, sampling))

    def close(self) -> None:
        """Stop everything that runs and free the model. May be called more than once."""
        self._scheduler.close()
        atexit.unregister(self._scheduler.close)


def _drop(scheduler: Scheduler) -> None:
    atexit.unregister(scheduler.close)
    scheduler.abandon()


def _load(bundle: Bundle, slots: int, context_tokens: int, threads: int) -> Scheduler:
    vision = OnnxVision(bundle, threads)
    model = Model(bundle.language)
    try:
        if vision.hidden != model.hidden:
            raise ModelError("model.parts_disagree", path=str(bundle.path))
        context = Context(model, slots, context_tokens, settings.BATCH_TOKENS, threads)
    except ImpChatError:
        model.free()
        raise
    return Scheduler(bundle, model, context, vision, slots, context_tokens)
