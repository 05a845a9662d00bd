"""The engine of a bundle on this machine: llama.cpp and onnxruntime, several conversations at once.

In: a bundle; prompts, from any thread. Out: their events. This file checks the options and loads the model;
`scheduler` runs it.
"""

from __future__ import annotations

from dataclasses import replace

from impchat import settings
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local.backend import Vision
from impchat.engines.local.base import ScheduledEngine, check_sizes
from impchat.engines.local.llama import Context, Model
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.tuning import Tuning, default
from impchat.engines.local.vision import OnnxVision
from impchat.errors import ImpChatError, ModelError


class LocalEngine(ScheduledEngine):
    """The Engine of a bundle. Runs up to `slots` requests at a time; others wait. A conversation's KV cache is kept
    until its slot is needed for another conversation."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        slots: int = settings.SLOTS,
        context_tokens: int | None = None,
        threads: int | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """Load the model. `context_tokens`: per conversation; None takes the bundle's value. `tuning`: None takes
        `tuning.default(bundle)`. `threads`: instead of both numbers of threads in it.

        Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError "engine.out_of_memory",
        "engine.not_installed" or "engine.no_mtmd", SettingsError "option.out_of_range"."""
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        tuning = tuning or default(bundle)
        if threads is not None:
            tuning = replace(tuning, threads=threads, vision_threads=threads)
        check_sizes(slots, context_tokens, tuning.threads)
        self.tuning = tuning
        info = EngineInfo("local", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        super().__init__(info, _load(bundle, slots, context_tokens, tuning))


def _load(bundle: Bundle, slots: int, context_tokens: int, tuning: Tuning) -> Scheduler:
    model = Model(bundle.language, tuning.repacked)
    vision: Vision | None = None
    try:
        vision = open_eyes(bundle, model, tuning.vision_threads, tuning.packed)
        if vision.hidden != model.hidden:
            raise ModelError("model.parts_disagree", path=str(bundle.path))
        context = Context(
            model,
            slots,
            context_tokens,
            settings.BATCH_TOKENS,
            tuning.threads,
            flash_attention=tuning.flash_attention,
            unified=tuning.unified,
        )
    except ImpChatError:
        if vision:
            vision.free()
        model.free()
        raise
    return Scheduler(bundle, model, context, vision, slots, context_tokens)


def open_eyes(bundle: Bundle, model: Model, threads: int, packed: bool = settings.PACK_VISION) -> Vision:
    """The vision encoder of `bundle`, whose language model is `model`. Raises as LocalEngine."""
    if bundle.mmproj is None:
        return OnnxVision(bundle, threads, packed)
    from impchat.engines.local.mtmd import MtmdVision  # not available on phones

    return MtmdVision(bundle, model, threads)
