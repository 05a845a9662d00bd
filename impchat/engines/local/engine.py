"""The engine of a bundle on this machine: llama.cpp and onnxruntime, several conversations at once.

In: a bundle; prompts, from any thread. Out: their events. This file checks the options and loads the model;
`scheduler` runs it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from impchat import settings
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local.backend import Vision
from impchat.engines.local.base import ScheduledEngine, check_sizes
from impchat.engines.local.llama import Context, Model, default_threads
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.vision import OnnxVision
from impchat.errors import ImpChatError, ModelError


def threads_for(bundle: Bundle) -> int:
    """The default number of threads for a LocalEngine of `bundle`: one per available processor, or 1 for a model below
    `settings.SMALL_MODEL_BYTES`."""
    return default_threads() if bundle.size_bytes >= settings.SMALL_MODEL_BYTES else 1


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
        packed: bool = True,
    ) -> None:
        """Load the model. `context_tokens`: per conversation; None takes the bundle's value. `threads`: None takes
        `threads_for(bundle)`. `packed`: see `OnnxVision`.

        Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError "engine.out_of_memory",
        "engine.not_installed" or "engine.no_mtmd", SettingsError "option.out_of_range"."""
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        if threads is None:
            threads = threads_for(bundle)
        check_sizes(slots, context_tokens, threads)
        info = EngineInfo("local", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        super().__init__(info, _load(bundle, slots, context_tokens, threads, packed))


def _load(bundle: Bundle, slots: int, context_tokens: int, threads: int, packed: bool) -> Scheduler:
    # onnxruntime packs the vision file's weights while llama.cpp clears the KV cache: at full size, each keeps one
    # processor busy for most of a second (docs/benchmarks.md). Leaving the block waits for the thread.
    with ThreadPoolExecutor(1, "impchat-load-eyes") as pool:
        onnx = pool.submit(OnnxVision, bundle, threads, packed) if bundle.mmproj is None else None
        model = Model(bundle.language)
        context: Context | None = None
        vision: Vision | None = None
        try:
            context = Context(model, slots, context_tokens, settings.BATCH_TOKENS, threads)
            vision = onnx.result() if onnx else open_eyes(bundle, model, threads)
            if vision.hidden != model.hidden:
                raise ModelError("model.parts_disagree", path=str(bundle.path))
        except ImpChatError:
            for part in (vision, context, model):
                if part:
                    part.free()
            raise
    return Scheduler(bundle, model, context, vision, slots, context_tokens)


def open_eyes(bundle: Bundle, model: Model, threads: int, packed: bool = True) -> Vision:
    """The vision encoder of `bundle`, whose language model is `model`. Raises as LocalEngine."""
    if bundle.mmproj is None:
        return OnnxVision(bundle, threads, packed)
    from impchat.engines.local.mtmd import MtmdVision  # not available on phones

    return MtmdVision(bundle, model, threads)
