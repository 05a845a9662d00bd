"""Try two GGUF files before they become a bundle: whether llama.cpp runs them, and what prompts must take into account.

In: a language model and its mmproj. Out: a `Trial`. It runs in a process of its own (`python -m impchat.models.trial`),
because llama.cpp aborts the process for some unusable files.
This file does not know bundles or chat templates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import impchat
from impchat import errors
from impchat.errors import ImpChatError, ModelError

_SHAPES = ((1.0, 1.0), (2.5, 1.0), (1.0, 2.5), (4.0, 4.0))  # height, width of the test pictures, in units of `size`
_READ = 32  # embeddings of one of them that the language model reads
_CONTEXT = 256


@dataclass(frozen=True, slots=True)
class Trial:
    """What llama.cpp reports about two files."""

    context_tokens: int  # that the language model was made for
    bos: int
    eos: int
    adds_bos: bool  # the vocabulary requires `bos` before a prompt
    adds_space: bool  # tokenising a text adds a space in front
    specials: dict[int, str]  # token id -> text, for special tokens
    ends: tuple[int, ...]  # token ids that end an answer
    tokens: int  # embeddings of one picture, whatever its shape
    before: tuple[int, ...]  # token ids around them
    after: tuple[int, ...]


def run(language: Path, mmproj: Path, size: int, threads: int) -> Trial:
    """Try the files in a process of its own. `size`: the sides of the mmproj's pictures, in pixels.

    Raises ModelError: "model.load_failed", "add.crashed" (llama.cpp ended the process), "add.recurrent" (its state
    cannot be truncated), "mmproj.sizes" (the number of embeddings depends on the picture's shape), "add.no_answer" (it
    cannot read a picture's embeddings), and those of `mtmd.Projector`; EngineError as `mtmd.Projector`."""
    package = str(Path(impchat.__file__).parent.parent)
    known = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "impchat.models.trial", str(language), str(mmproj), str(size), str(threads)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(known)},
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        raise ModelError("add.crashed", path=str(mmproj), number=done.returncode)
    found = json.loads(done.stdout.splitlines()[-1])
    if "code" in found:
        raise getattr(errors, found["kind"])(found["code"], **found["values"])
    specials = {int(token): text for token, text in found["specials"].items()}
    lists = {name: tuple(found[name]) for name in ("ends", "before", "after")}
    return Trial(**(found | lists | {"specials": specials}))


def _try(language: Path, mmproj: Path, size: int, threads: int) -> Trial:
    import numpy as np

    from impchat.engines.local.backend import Outcome, Row
    from impchat.engines.local.llama import Context, Model
    from impchat.engines.local.mtmd import Projector

    model = Model(language)
    if not model.forgets_a_tail:
        raise ModelError("add.recurrent", path=str(language))
    projector = Projector(mmproj, model, threads)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (int(h * size), int(w * size), 3), np.uint8) for h, w in _SHAPES]
    measures = [projector.measure(picture) for picture in pictures]
    if len({*measures}) != 1:
        raise ModelError("mmproj.sizes", path=str(mmproj))
    before, tokens, after = measures[0]
    seen = projector.see(pictures[0]).embeddings[:_READ]
    context = Context(model, 1, _CONTEXT, _CONTEXT, threads)
    rows = [Row(0, n, logits=n == len(seen) - 1) for n in range(len(seen))]
    if not np.isfinite(seen).all() or context.decode(rows, np.ascontiguousarray(seen)) is not Outcome.DONE:
        raise ModelError("add.no_answer", path=str(mmproj))
    specials = model.special_tokens()
    return Trial(
        context_tokens=model.context_tokens,
        bos=model.bos,
        eos=model.eos,
        adds_bos=model.adds_bos,
        adds_space=model.piece(model.tokenize("a")[0]).startswith(b" "),
        specials=specials,
        ends=tuple(token for token in specials if model.ends_answer(token)),
        tokens=tokens,
        before=before,
        after=after,
    )


def _main(language: str, mmproj: str, size: str, threads: str) -> None:
    result: dict[str, Any]
    try:
        result = asdict(_try(Path(language), Path(mmproj), int(size), int(threads)))
    except ImpChatError as exc:
        result = {"kind": type(exc).__name__, "code": exc.code, "values": exc.values}
    print(json.dumps(result), flush=True)
    os._exit(0)  # the result is printed; skip llama.cpp's cleanup


if __name__ == "__main__":
    _main(*sys.argv[1:])
