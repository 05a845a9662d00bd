"""An engine that runs a checkpoint with transformers: on a GPU if there is one, and as the reference for bundles.

In: a checkpoint folder; prompts, from any thread. Out: their events, as from every engine. Conversations, KV caches and
pictures are handled by the same scheduler as for a bundle, here with torch tensors.
This file does not know layouts, files or how transformers is set up; `models.convert.reference` does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import images, settings, texts
from impchat.bundle import Bundle
from impchat.engines import EngineInfo
from impchat.engines.local import backend
from impchat.engines.local.backend import Outcome, Row
from impchat.engines.local.base import ScheduledEngine, check_sizes
from impchat.engines.local.scheduler import Scheduler
from impchat.engines.local.vision import CachedVision
from impchat.errors import EngineError
from impchat.messages import Picture, Sampling

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from impchat.models.convert.reference import Reference
    from impchat.models.convert.tokens import Tokens


class TorchEngine(ScheduledEngine):
    """The Engine of a checkpoint. Runs `slots` conversations at a time, others wait; each keeps its KV cache until
    another one needs its slot."""

    def __init__(
        self,
        source: Path,
        *,
        id: str | None = None,
        slots: int = settings.SLOTS,
        context_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        """`source`, `id`: as in `convert.Conversion`, but `id` None is the name of `source`. `context_tokens`: for each
        conversation; None: as for a bundle of it. `device`: torch's name, "cuda" or "cpu"; None: a GPU if there is one.
        A GPU computes in float16, as Imp's own code does, a CPU in float32.

        Loads the model. Raises ModelError as `convert.describe` and `layouts.recognise`, EngineError
        "engine.not_installed" or "engine.out_of_memory", SettingsError "option.out_of_range"."""
        try:
            import torch

            from impchat.models.convert import describe, vocabulary
            from impchat.models.convert.checkpoint import Checkpoint
            from impchat.models.convert.reference import Reference
            from impchat.models.convert.tokens import Tokens
        except ModuleNotFoundError as exc:
            values = {"package": "impchat[convert]", "install": texts.install("convert")}
            raise EngineError("engine.not_installed", detail=str(exc), **values) from exc
        folder = Checkpoint(source)
        bundle = describe(folder, source.absolute().name if id is None else id)
        context_tokens = bundle.context_tokens if context_tokens is None else context_tokens
        check_sizes(slots, context_tokens, 1)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            reference = Reference(source, device=device)
        except torch.OutOfMemoryError as exc:
            raise EngineError("engine.out_of_memory", tokens=slots * context_tokens, detail=str(exc)) from exc
        info = EngineInfo("torch", bundle.id, context_tokens, True, bundle.image.tokens, bundle.sampling)
        size, family = reference.weights.language, reference.weights.layout.family
        bos = vocabulary.read(folder, size.vocab, family.pre_tokenizer).bos
        # Without a bos, no prompt uses this value.
        model = TorchModel(size.hidden, bundle.text.eos[0] if bos is None else bos, Tokens(reference.tokenizer))
        context, vision = TorchContext(reference, slots), TorchVision(reference, bundle)
        super().__init__(info, Scheduler(bundle, model, context, vision, slots, context_tokens))


class TorchVision(CachedVision):
    """The vision encoder of a checkpoint."""

    def __init__(self, reference: Reference, bundle: Bundle) -> None:
        super().__init__(bundle.image.tokens)
        self._reference = reference
        self._rule = bundle.image
        self.hidden = reference.hidden

    def _encode(self, picture: Picture) -> NDArray[numpy.float32]:
        rule = self._rule
        pixels = images.model_input(picture.data, rule.size, rule.aspect, rule.mean, rule.std)
        try:
            embeddings: NDArray[numpy.float32] = self._reference.embed(pixels)[0]
        except RuntimeError as exc:  # torch's only exception class, also for out of memory
            raise EngineError("engine.vision_failed", detail=str(exc).partition("\n")[0]) from exc
        return embeddings

    def close(self) -> None:
        """Does not interrupt a running encode: on a GPU it takes milliseconds."""

    def free(self) -> None:
        """torch frees its memory with the last reference."""


class TorchModel:
    """A checkpoint's vocabulary, and samplers for its logits."""

    def __init__(self, hidden: int, bos: int, tokens: Tokens) -> None:
        self.hidden = hidden
        self.bos = bos
        self.tokenize = tokens.encode
        self.piece = tokens.piece

    def sampler(self, sampling: Sampling, seed: int) -> TorchSampler:
        return TorchSampler(sampling, seed)

    def free(self) -> None:
        """torch frees its memory with the last reference."""


class TorchContext:
    """The KV caches of `sequences` conversations. A batch is decoded one sequence at a time."""

    def __init__(self, reference: Reference, sequences: int) -> None:
        self.batch_tokens = settings.BATCH_TOKENS
        self._reference = reference
        self._caches = [reference.cache() for _ in range(sequences)]
        self._logits: dict[int, NDArray[numpy.float32]] = {}  # after the rows that requested them
        self._aborted = threading.Event()
        # Checked before each layer: a prompt's next chunk takes seconds on a CPU, a single layer little.
        self._hooks = [layer.register_forward_pre_hook(self._look_up) for layer in reference.layers]

    def decode(self, rows: Sequence[Row], embeddings: NDArray[numpy.float32] | None = None) -> Outcome:
        """See `backend.Context.decode`."""
        assert 0 < len(rows) <= self.batch_tokens
        self._logits.clear()
        start = 0
        try:
            for end in range(1, len(rows) + 1):
                if end < len(rows) and rows[end].sequence == rows[start].sequence:
                    continue
                self._decode(rows[start:end], start, None if embeddings is None else embeddings[start:end])
                start = end
        except _Aborted:
            return Outcome.ABORTED
        except RuntimeError:  # torch's only exception class, also for out of memory
            return Outcome.FAILED
        return Outcome.DONE

    def logits(self, row: int) -> NDArray[numpy.float32]:
        """The logits (vocabulary,) after row number `row` of the last decode; the row must have requested `logits`."""
        return self._logits[row]

    def abort(self) -> None:
        self._aborted.set()

    def rearm(self) -> None:
        self._aborted.clear()

    def remove(self, sequence: int, start: int) -> None:
        """See `backend.Context.remove`."""
        for layer in self._caches[sequence].layers:
            # An aborted decode has filled some layers and not the others.
            layer.crop(min(0, start - layer.get_seq_length()))

    def share(self, source: int, target: int, end: int) -> None:
        """See `backend.Context.share`; the tensors are shared until either sequence continues."""
        layers = self._caches[source].layers
        held = [(layer.keys[..., :end, :], layer.values[..., :end, :]) for layer in layers]
        self._caches[target] = self._reference.cache(held)

    def save(self, sequence: int) -> NDArray[numpy.uint8] | None:
        """None: checkpoints are run to compare them, not to chat for days."""
        return None

    def restore(self, sequence: int, state: NDArray[numpy.uint8]) -> bool:
        """See `save`."""
        return False

    def free(self) -> None:
        """Release the caches and the model."""
        for hook in self._hooks:
            hook.remove()
        self._caches.clear()
        self._logits.clear()

    def _decode(self, rows: Sequence[Row], first: int, embeddings: NDArray[numpy.float32] | None) -> None:
        """Decode `rows`, all of one sequence; the first is row number `first` of the batch."""
        piece = [row.token for row in rows] if embeddings is None else embeddings
        wanted = [n for n, row in enumerate(rows) if row.logits]
        found = self._reference.read([piece], self._caches[rows[0].sequence], wanted)
        self._logits |= {first + n: values for n, values in zip(wanted, found, strict=True)}

    def _look_up(self, *_: Any) -> None:
        if self._aborted.is_set():
            raise _Aborted


class TorchSampler:
    """Chooses the next token of one answer as `llama.Sampler` does: penalties, top-k, top-p, min-p, then temperature.
    NumPy draws the random numbers, so that a seed gives the same answer on every device with the same logits."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        import numpy as np

        self._sampling = sampling
        self._draw = np.random.default_rng(seed)
        self._said: list[int] = []

    def pick(self, context: backend.Context, row: int) -> int:
        """The next token after row number `row` of the last decode; the row must have requested `logits`."""
        assert isinstance(context, TorchContext)
        token = self.choose(context.logits(row))
        self.accept(token)
        return token

    def accept(self, token: int) -> None:
        """Record `token`, which was chosen elsewhere, as picked."""
        self._said.append(token)

    def choose(self, logits: NDArray[numpy.float32]) -> int:
        """A token chosen by its logits (vocabulary,)."""
        import numpy as np

        chosen = self._sampling
        values: NDArray[numpy.float64] = logits.astype(np.float64)
        if chosen.repeat_penalty != 1.0:
            said = np.unique(self._said[-settings.PENALTY_TOKENS :]).astype(np.int64)
            values[said] *= np.where(values[said] > 0, 1 / chosen.repeat_penalty, chosen.repeat_penalty)
        if chosen.temperature == 0:
            return int(values.argmax())
        order = np.argsort(-values, kind="stable")
        if chosen.top_k > 0:
            order = order[: chosen.top_k]
        if chosen.top_p < 1:
            chances = _chances(values[order])
            likelier = np.cumsum(chances) - chances  # total probability of the likelier tokens
            order = order[: max(1, int((likelier < chosen.top_p).sum()))]
        if chosen.min_p > 0:
            chances = _chances(values[order])
            order = order[chances >= chosen.min_p * chances[0]]
        return int(self._draw.choice(order, p=_chances(values[order] / chosen.temperature)))

    def free(self) -> None:
        self._said.clear()


class _Aborted(Exception):
    """Ends the running decode."""


def _chances(logits: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Probabilities of `logits`, the first of which is the largest."""
    import numpy as np

    weights: NDArray[numpy.float64] = np.exp(logits - logits[0])
    chances: NDArray[numpy.float64] = weights / weights.sum()
    return chances
