"""The interfaces that the scheduler runs on: model, KV cache, sampler and vision encoder.

In: token ids and embeddings, position by position. Out: a filled KV cache, and next tokens.
`llama` implements these for GGUF files, `models.convert.torch_engine` for checkpoints; `vision` and `mtmd` hold vision
encoders. This file knows no implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from impchat.messages import Picture, Sampling

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Row:
    """One position of a batch."""

    sequence: int
    position: int
    token: int = 0  # not used with embeddings
    logits: bool = False  # compute logits: the next token is sampled from this row


class Outcome(Enum):
    """How a decode ended. Unless it is DONE, the caller must remove the rows' positions from their sequences."""

    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"


class Context(Protocol):
    """The KV cache of several sequences, and decoding into it. Use it on one thread; only `abort` is thread-safe."""

    batch_tokens: int  # most rows of one decode

    def decode(self, rows: Sequence[Row], embeddings: NDArray[numpy.float32] | None = None) -> Outcome:
        """Decode 1 to `batch_tokens` `rows` into the KV cache: their tokens, or `embeddings`, float32 (rows, hidden).
        Within a sequence, positions must be consecutive and continue what the cache holds."""
        ...

    def abort(self) -> None:
        """Abort the running decode, and any later one until `rearm`."""
        ...

    def rearm(self) -> None:
        """Allow decodes again."""
        ...

    def remove(self, sequence: int, start: int) -> None:
        """Remove the positions of `sequence` from `start` on."""
        ...

    def share(self, source: int, target: int, end: int) -> None:
        """Make the first `end` positions of `source` the content of `target`, which must be empty."""
        ...

    def save(self, sequence: int) -> NDArray[numpy.uint8] | None:
        """A copy of the state of `sequence`. None if the context cannot export it, or has no memory for it."""
        ...

    def restore(self, sequence: int, state: NDArray[numpy.uint8]) -> bool:
        """Make `state`, which `save` returned, the content of `sequence`, which must be empty. Returns whether it fits
        this context; if not, the sequence stays empty."""
        ...

    def free(self) -> None: ...


class Sampler(Protocol):
    """Chooses the next tokens of one answer."""

    def pick(self, context: Context, row: int) -> int:
        """Sample the token after row `row` of the last decode. That row must have `logits`."""
        ...

    def accept(self, token: int) -> None:
        """Treat `token`, which was sampled elsewhere, as if it had been picked here."""
        ...

    def free(self) -> None: ...


class Model(Protocol):
    """Weights and vocabulary."""

    hidden: int
    bos: int

    def tokenize(self, text: str, special: bool = False, /) -> list[int]:
        """Token ids of `text`, without bos or eos. With `special`, markers in `text` become one token each."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, possibly only part of a character; empty for a special token."""
        ...

    def sampler(self, sampling: Sampling, seed: int) -> Sampler: ...

    def free(self) -> None: ...


class Vision(Protocol):
    """A vision encoder: pictures -> embeddings. All methods may be called from any thread."""

    hidden: int

    def cached(self, sha256: str) -> NDArray[numpy.float32] | None:
        """The cached embeddings of the picture with this hash, or None."""
        ...

    def encode(self, picture: Picture) -> NDArray[numpy.float32]:
        """The embeddings of `picture`, float32 (tokens, hidden), read-only. Raises ImageError for bytes that are not a
        picture, EngineError "engine.vision_failed"."""
        ...

    def close(self) -> None:
        """Abort the encoding that runs, and fail every later one."""
        ...

    def free(self) -> None:
        """Free the memory. Call it after `close`, when no encoding runs, and before the model is freed."""
        ...
