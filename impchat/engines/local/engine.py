"""The engine of a bundle on this machine: llama.cpp and onnxruntime, several conversations at once.

In: a bundle; prompts, from any thread. Out: their events. This file checks the options and loads the model;
`scheduler` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from impchat import paths, settings
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local.backend import Vision
from impchat.engines.local.base import ScheduledEngine, check_sizes
from impchat.engines.local.disk_cache import DiskCache, identity
from impchat.engines.local.kv_states import KvStates
from impchat.engines.local.llama import Context, Model, default_threads, version
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.vision import Embeddings, OnnxVision
from impchat.errors import ImpChatError, ModelError


def threads_for(bundle: Bundle) -> int:
    """The default number of threads for a LocalEngine of `bundle`: one per available processor, or 1 for a model below
    `settings.SMALL_MODEL_BYTES`."""
    return default_threads() if bundle.size_bytes >= settings.SMALL_MODEL_BYTES else 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What an engine keeps on disk, so that it is not computed again after a restart: KV states and embeddings."""

    data: Path  # the data folder
    has_conversation: Callable[[str], bool]  # whether the conversation with this key is stored
    has_picture: Callable[[str], bool]  # whether the picture with this sha256 is stored


class LocalEngine(ScheduledEngine):
    """The Engine of a bundle. Runs up to `slots` requests at a time; others wait. A conversation's KV cache is kept
    until its slot is needed for another conversation, and on disk with `kept`."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        slots: int = settings.SLOTS,
        context_tokens: int | None = None,
        threads: int | None = None,
        packed: bool = True,
        kept: Kept | None = None,
    ) -> None:
        """Load the model. `context_tokens`: per conversation; None takes the bundle's value. `threads`: None takes
        `threads_for(bundle)`. `packed`: see `OnnxVision`. `kept`: None writes nothing to disk.

        Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError "engine.out_of_memory",
        "engine.not_installed" or "engine.no_mtmd", SettingsError "option.out_of_range"."""
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        if threads is None:
            threads = threads_for(bundle)
        check_sizes(slots, context_tokens, threads)
        info = EngineInfo("local", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        super().__init__(info, _load(bundle, slots, context_tokens, threads, packed, kept))


def _load(bundle: Bundle, slots: int, context_tokens: int, threads: int, packed: bool, kept: Kept | None) -> Scheduler:
    embeddings = _embeddings(bundle, kept) if kept else None
    # onnxruntime packs the vision file's weights while llama.cpp clears the KV cache: at full size, each keeps one
    # processor busy for most of a second (docs/benchmarks.md). Leaving the block waits for the thread.
    with ThreadPoolExecutor(1, "impchat-load-eyes") as pool:
        onnx = pool.submit(OnnxVision, bundle, threads, packed, embeddings) if bundle.mmproj is None else None
        model = Model(bundle.language)
        context: Context | None = None
        vision: Vision | None = None
        try:
            context = Context(model, slots, context_tokens, settings.BATCH_TOKENS, threads)
            vision = onnx.result() if onnx else open_eyes(bundle, model, threads, packed, embeddings)
            if vision.hidden != model.hidden:
                raise ModelError("model.parts_disagree", path=str(bundle.path))
        except ImpChatError:
            for part in (vision, context, model):
                if part:
                    part.free()
            raise
    states = _states(bundle, kept) if kept else None
    return Scheduler(bundle, model, context, vision, slots, context_tokens, states)


def _states(bundle: Bundle, kept: Kept) -> KvStates:
    """The KV states that this model and these settings have left in the data folder."""
    parts = sorted(bundle.files.items()), bundle.image, version(), settings.FLASH_ATTENTION, settings.REPACK_WEIGHTS
    cache = DiskCache(paths.kv_states_dir(kept.data), settings.KV_STATES_BYTES)
    return KvStates(cache, identity(*parts), kept.has_conversation)


def _embeddings(bundle: Bundle, kept: Kept) -> Embeddings:
    """The embeddings that this vision file has left in the data folder."""
    cache = DiskCache(paths.embeddings_dir(kept.data), settings.EMBEDDINGS_BYTES)
    encoder = sorted((kind, file) for kind, file in bundle.files.items() if kind != "language")
    return Embeddings(cache, identity(encoder, bundle.image), kept.has_picture)


def open_eyes(
    bundle: Bundle, model: Model, threads: int, packed: bool = True, embeddings: Embeddings | None = None
) -> Vision:
    """The vision encoder of `bundle`, whose language model is `model`. Raises as LocalEngine."""
    if bundle.mmproj is None:
        return OnnxVision(bundle, threads, packed, embeddings)
    from impchat.engines.local.mtmd import MtmdVision  # not available on phones

    return MtmdVision(bundle, model, threads, embeddings)
