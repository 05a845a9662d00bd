"""The work folder of a conversion, which collects the tensors of a checkpoint, one weight file at a time.

In: a plan, a vocabulary, and weight files in any order, each of which may be deleted once it is taken. Out: the 16-bit
GGUF, and every tensor for the later steps. If the process is killed at any moment, the next one resumes after the last
file that was taken completely; all files get the same bytes as without an interruption.
This file does not know bundles, or what is made of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat.errors import ModelError
from impchat.models.convert import language as language_file
from impchat.models.convert.checkpoint import WeightFile
from impchat.models.convert.layouts import Plan, VisionLayout, Weights, check_shapes, eye_shapes
from impchat.models.convert.parts import Place
from impchat.models.convert.vocabulary import Vocabulary

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Array

_STATE = "state.json"
_LANGUAGE = "language.f16"
_EYES = "eyes.f32"
_FORMAT = 2  # increased when the work files change, so that those of an older ImpChat are discarded


class Work:
    """The work folder `folder` for the checkpoint that `plan` describes."""

    def __init__(self, folder: Path, plan: Plan, vocabulary: Vocabulary, *, mark: str) -> None:
        """Resume the work in `folder`, or start over if that has another `mark`: an identifier of the checkpoint and of
        everything else that determines the work files."""
        self.folder = folder
        self.language = folder / _LANGUAGE  # the 16-bit GGUF, complete when all weight files are taken
        self._plan = plan
        state = _read_state(folder / _STATE)
        if state.get("mark") != [_FORMAT, mark]:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            state = {"mark": [_FORMAT, mark], "taken": {}, "shapes": {}}
            state["language_at"] = language_file.begin(plan, vocabulary, self.language)
            (folder / _EYES).touch()
            _sync(self.language)
            self._write_state(state)
        self._state = state
        self._places = {n: (self.language, p) for n, p in language_file.places(plan, state["language_at"]).items()}
        self._fit(state["shapes"])

    def _fit(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Correct the plan, and the places of the vision tensors, by the shapes found in the checkpoint."""
        for name, shape in shapes.items():
            self._plan = self._plan.fitted(name, tuple(shape))
        # The position table is last, because its length is unknown until it is read.
        ordered = sorted(eye_shapes(self._plan.eyes).items(), key=lambda item: "position" in item[0])
        at = 0
        for tensor, shape in ordered:
            self._places[tensor] = (self.folder / _EYES, Place(at, shape, "float32"))
            at += 4 * prod(shape)
        self.eyes_bytes = at  # of the vision tower's work file, in 32 bits

    @property
    def eyes(self) -> VisionLayout:
        """The vision tower; final once all weight files are taken."""
        return self._plan.eyes

    @property
    def taken(self) -> Mapping[str, Mapping[str, str]]:
        """Weight file -> its tensors -> sha256 of each."""
        taken: Mapping[str, Mapping[str, str]] = self._state["taken"]
        return taken

    @property
    def weights(self) -> Weights:
        """The tensors, once all weight files are taken: the vision tower's in float32, the language model's as stored
        in the 16-bit GGUF."""
        return Weights(self._plan, self._read)

    @property
    def language_bytes(self) -> int:
        """Of the 16-bit GGUF."""
        return self.language.stat().st_size

    def take(self, path: Path, names: set[str]) -> None:
        """Take the weight file `path`, which must contain the tensors `names`. They are on disk when this returns.

        Raises ModelError as WeightFile and `check_shapes`, "checkpoint.overflow"."""
        weights = WeightFile(path)
        weights.expect(names)
        if changed := {n: weights.shape(n) for n in names if self._plan.fitted(n, weights.shape(n)) != self._plan}:
            self._fit(changed)
            self._state["shapes"] |= changed
        check_shapes(self._plan, names, weights.shape, str(path))
        wanted: dict[str, list[str]] = {}  # name in the checkpoint -> our names
        for ours, part in self._plan.parts.items():
            wanted.setdefault(part.name, []).append(ours)
        hashes = {}
        for tensor in weights.names:
            values = weights.read(tensor)
            hashes[tensor] = hashlib.sha256(f"{values.dtype}".encode() + values.tobytes()).hexdigest()
            for ours in wanted.get(tensor, ()):
                rows = self._plan.parts[ours].rows
                self._write(ours, values[slice(*rows)] if rows else values, path)
        for file in (self.language, self.folder / _EYES):
            _sync(file)
        self._state["taken"][path.name] = hashes
        self._write_state(self._state)

    def _write(self, name: str, values: Array, path: Path) -> None:
        import numpy as np

        file, place = self._places[name]
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(values, dtype=place.dtype)
        if values.dtype != cast.dtype and np.isinf(cast).any():
            raise ModelError("checkpoint.overflow", path=str(path), name=name)
        with file.open("r+b") as out:
            out.seek(place.at)
            out.write(cast.data)

    def _read(self, name: str) -> Array:
        import numpy as np

        file, place = self._places[name]
        values: Array = np.fromfile(file, place.dtype, prod(place.shape), offset=place.at).reshape(place.shape)
        return values

    def _write_state(self, state: dict[str, Any]) -> None:
        new = self.folder / (_STATE + ".new")
        new.write_text(json.dumps(state), encoding="utf-8")
        _sync(new)
        new.replace(self.folder / _STATE)
        _sync(self.folder)


def _read_state(path: Path) -> dict[str, Any]:
    """The state left by a killed process; {} if there is none."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _sync(path: Path) -> None:
    """Flush a file or folder to disk. Windows cannot open folders, and does not need to."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
