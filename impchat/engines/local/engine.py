"""The engine of a bundle on this machine: llama.cpp and onnxruntime, several conversations at once.

In: a bundle; prompts, from any thread. Out: their events. This file checks the options and loads the model;
`scheduler` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from impchat import paths, settings
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local.backend import Vision
from impchat.engines.local.base import ScheduledEngine, check_sizes
from impchat.engines.local.disk_cache import DiskCache, identity
from impchat.engines.local.kv_states import KvStates
from impchat.engines.local.llama import Context, Model, version
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.tuning import Tuning, default
from impchat.engines.local.vision import Embeddings, OnnxVision
from impchat.errors import ImpChatError, ModelError


@dataclass(frozen=True, slots=True)
class Kept:
    """What an engine keeps on disk, so that it is not computed again after a restart: KV states and embeddings."""

    data: Path  # the data folder
    has_conversation: Callable[[str], bool]  # whether the conversation with this key is stored
    has_picture: Callable[[str], bool]  # whether the picture with this sha256 is stored
    kv_states_bytes: int = settings.KV_STATES_BYTES  # budget


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
        tuning: Tuning | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Load the model. `context_tokens`: per conversation; None takes the bundle's value. `tuning`: None takes
        `tuning.default(bundle)`. `threads`: instead of both numbers of threads in it. `kept`: None writes nothing to
        disk.

        Raises ModelError "model.load_failed" or "model.parts_disagree", EngineError "engine.out_of_memory",
        "engine.not_installed" or "engine.no_mtmd", SettingsError "option.out_of_range"."""
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        tuning = tuning or default(bundle)
        if threads is not None:
            tuning = replace(tuning, threads=threads, vision_threads=threads)
        check_sizes(slots, context_tokens, tuning.threads)
        self.tuning = tuning
        info = EngineInfo("local", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        super().__init__(info, _load(bundle, slots, context_tokens, tuning, kept))


def _load(bundle: Bundle, slots: int, context_tokens: int, tuning: Tuning, kept: Kept | None) -> Scheduler:
    # onnxruntime packs the vision file's weights while llama.cpp clears the KV cache: at full size, each keeps one
    # processor busy for most of a second (docs/benchmarks.md). Leaving the block waits for the thread.
    embeddings = _embeddings(bundle, kept) if kept else None
    eyes = bundle, tuning.vision_threads, tuning.packed, embeddings
    with ThreadPoolExecutor(1, "impchat-load-eyes") as pool:
        onnx = pool.submit(OnnxVision, *eyes) if bundle.mmproj is None else None
        model = Model(bundle.language, tuning.repacked)
        context: Context | None = None
        vision: Vision | None = None
        try:
            context = Context(
                model,
                slots,
                context_tokens,
                settings.BATCH_TOKENS,
                tuning.threads,
                flash_attention=tuning.flash_attention,
                unified=tuning.unified,
            )
            vision = onnx.result() if onnx else open_eyes(bundle, model, tuning.vision_threads, embeddings=embeddings)
            if vision.hidden != model.hidden:
                raise ModelError("model.parts_disagree", path=str(bundle.path))
        except ImpChatError:
            for part in (vision, context, model):
                if part:
                    part.free()
            raise
    states = _states(bundle, tuning, kept) if kept else None
    return Scheduler(bundle, model, context, vision, slots, context_tokens, states)


def _states(bundle: Bundle, tuning: Tuning, kept: Kept) -> KvStates:
    """The KV states that this model has left in the data folder. With flash attention, llama.cpp stores the values in
    another order; repacked weights round differently. The other settings do not change a state."""
    settings_of_state = tuning.flash_attention, tuning.repacked
    made_by = identity(sorted(bundle.files.items()), bundle.image, version(), settings_of_state)
    return KvStates(DiskCache(paths.kv_states_dir(kept.data), kept.kv_states_bytes), made_by, kept.has_conversation)


def _embeddings(bundle: Bundle, kept: Kept) -> Embeddings:
    """The embeddings that this vision file has left in the data folder."""
    cache = DiskCache(paths.embeddings_dir(kept.data), settings.EMBEDDINGS_BYTES)
    encoder = sorted((kind, file) for kind, file in bundle.files.items() if kind != "language")
    return Embeddings(cache, identity(encoder, bundle.image), kept.has_picture)


def open_eyes(
    bundle: Bundle,
    model: Model,
    threads: int,
    packed: bool = settings.PACK_VISION,
    embeddings: Embeddings | None = None,
) -> Vision:
    """The vision encoder of `bundle`, whose language model is `model`. Raises as LocalEngine."""
    if bundle.mmproj is None:
        return OnnxVision(bundle, threads, packed, embeddings)
    from impchat.engines.local.mtmd import MtmdVision  # not available on phones

    return MtmdVision(bundle, model, threads, embeddings)
