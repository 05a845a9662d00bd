"""Run a bundle for its numbers instead of answers.

In: a bundle, prompts with given answers. Out: embeddings, and the logits after the requested positions.
This file does not know what the numbers should be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from impchat import paths, prompts, settings
from impchat.bundle import Bundle
from impchat.engines.local import kv_cache
from impchat.engines.local.backend import Outcome, Row
from impchat.engines.local.engine import open_eyes
from impchat.engines.local.llama import Context, Model
from impchat.engines.local.tuning import threads_for
from impchat.errors import EngineError
from impchat.messages import Picture, Prompt, Turn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_ROWS = 32  # maximum logits of one decode


def sample(name: str) -> Picture:
    """One of the included sample pictures."""
    data = (paths.samples_dir() / name).read_bytes()
    return Picture(hashlib.sha256(data).hexdigest(), data)


class Subject(AbstractContextManager["Subject"]):
    """An open bundle; a context manager that closes it.

    Its constructor raises ModelError and EngineError as LocalEngine; later EngineError "engine.decode_failed"."""

    def __init__(self, bundle: Bundle) -> None:
        threads = threads_for(bundle)
        self.bundle = bundle
        self.model = Model(bundle.language)
        self.eyes = open_eyes(bundle, self.model, threads)
        self._context = Context(self.model, 1, bundle.context_tokens, settings.BATCH_TOKENS, threads, logits=_ROWS)
        self._read: list[kv_cache.Cell] = []
        self._writing = (bundle.writing, settings.SYSTEM)

    def __exit__(self, *_: object) -> None:
        self.eyes.close()
        self.eyes.free()
        self._context.free()
        self.model.free()

    @contextmanager
    def writing_as(self, template: str | None, system: str | None) -> Iterator[None]:
        """Within this block, render prompts with another template and system text; None: unchanged."""
        before = self._writing
        self._writing = (template or before[0], before[1] if system is None else system)
        try:
            yield
        finally:
            self._writing = before

    def cells(self, picture: Picture, question: str, answer: str = "") -> list[kv_cache.Cell]:
        """The cells of a question about `picture`; with an `answer`, up to and including the eos after it."""
        turns = [Turn("user", question, (picture,))]
        if answer:
            turns += [Turn("assistant", answer), Turn("user", question)]
        bundle = self.bundle
        bos = self.model.bos if bundle.text.add_bos else None
        tokenize = prompts.in_nfc(self.model.tokenize) if bundle.text.nfc else self.model.tokenize
        template, system = self._writing
        written = (template, tokenize, bundle.text.eos[0], bos)
        cells = kv_cache.cells(prompts.render(Prompt(system, tuple(turns)), *written), bundle.image.tokens)
        if answer:
            asked = self.cells(picture, question)
            assert cells[: len(asked)] == asked, "a prompt only grows"
            cells = cells[: cells.index(bundle.text.eos[0], len(asked)) + 1]
        return cells

    def logits(self, cells: Sequence[kv_cache.Cell], picture: Picture, wanted: Sequence[int]) -> Floats:
        """The logits (wanted, vocabulary) after the `wanted` positions of `cells`, in ascending order. The prefix
        shared with the last call is not read again."""
        import numpy as np

        seen = self.eyes.encode(picture)
        start = min(kv_cache.common(self._read, cells), wanted[0])
        self._context.remove(0, start)
        self._read = list(cells)
        asked = set(wanted)
        found = []
        while start < len(cells):
            end = start + 1
            while end < min(len(cells), start + _ROWS) and _is_text(cells[end]) is _is_text(cells[start]):
                end += 1
            part = cells[start:end]
            rows = [
                Row(0, start + n, cell if isinstance(cell, int) else 0, start + n in asked)
                for n, cell in enumerate(part)
            ]
            shown = [seen[cell[1]] for cell in part if not isinstance(cell, int)]
            if self._context.decode(rows, np.stack(shown) if shown else None) is not Outcome.DONE:
                raise EngineError("engine.decode_failed")
            found += [self._context.logits(n) for n, row in enumerate(rows) if row.logits]
            start = end
        return np.stack(found)


def _is_text(cell: kv_cache.Cell) -> bool:
    return isinstance(cell, int)
