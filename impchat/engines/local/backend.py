"""What computes below the scheduler: a model and its vocabulary, the KV cache, a sampler, eyes.

In: token ids and embeddings, position by position. Out: the KV cache that they fill, and next tokens.
`llama` has these for GGUF files, `torch` for checkpoints; `vision` has eyes for ONNX. This file knows none of them.
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
    logits: bool = False  # the next token is going to be sampled from this row


class Outcome(Enum):
    """How a decode ended. Where it is not DONE, the rows' positions must be removed from their sequences."""

    DONE = "done"
    ABORTED = "aborted"
    FAILED = "failed"


class Context(Protocol):
    """The KV cache of several sequences, and the decoding into it. Belongs to one thread; `abort` may come from any."""

    batch_tokens: int  # most rows of one decode

    def decode(self, rows: Sequence[Row], embeddings: NDArray[numpy.float32] | None = None) -> Outcome:
        """Read `rows` (1 to `batch_tokens`) into the KV cache: their tokens, or `embeddings` (float32, rows x hidden).
        Per sequence, positions follow each other and what is there already."""
        ...

    def abort(self) -> None:
        """End the decode that runs, and any later one until `rearm`."""
        ...

    def rearm(self) -> None:
        """Let decodes run again."""
        ...

    def remove(self, sequence: int, start: int) -> None:
        """Forget the positions of `sequence` from `start` on."""
        ...

    def share(self, source: int, target: int, end: int) -> None:
        """Let `target`, which is empty, begin with the first `end` positions of `source`."""
        ...

    def free(self) -> None: ...


class Sampler(Protocol):
    """Chooses the next tokens of one answer."""

    def pick(self, context: Context, row: int) -> int:
        """The next token after row number `row` of the last decode, one with `logits`."""
        ...

    def accept(self, token: int) -> None:
        """Count `token`, which was chosen elsewhere, among those picked."""
        ...

    def free(self) -> None: ...


class Model(Protocol):
    """Weights and vocabulary."""

    hidden: int
    bos: int

    def tokenize(self, text: str, special: bool = False, /) -> list[int]:
        """Token ids of `text`, without bos or eos; with `special`, markers in it become one token each."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, often a part of a character only; none for a special token."""
        ...

    def sampler(self, sampling: Sampling, seed: int) -> Sampler: ...

    def free(self) -> None: ...


class Vision(Protocol):
    """Pictures -> embeddings. All methods may be called from any thread."""

    hidden: int

    def cached(self, sha256: str) -> NDArray[numpy.float32] | None:
        """The embeddings of the picture with this hash, where it was encoded lately."""
        ...

    def encode(self, picture: Picture) -> NDArray[numpy.float32]:
        """float32 (tokens, hidden), not to be written to. Raises ImageError for bytes that are no picture,
        EngineError "engine.vision_failed"."""
        ...

    def close(self) -> None:
        """End the picture that is being encoded, and fail every later one."""
        ...

    def free(self) -> None:
        """Give the memory back, after `close` and when nobody encodes any more; the model must still be there."""
        ...
