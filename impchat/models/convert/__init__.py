"""`impchat convert`: convert an Imp checkpoint to a bundle, all at once or one weight file at a time.

In: a checkpoint folder and the types wanted. Out: a bundle, which appears at its place when it is complete.
This file does not know tensors, GGUF or ONNX; the other modules of this package do.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from impchat import bundle, settings
from impchat.errors import SettingsError
from impchat.models import catalog

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Folder
    from impchat.models.convert.layouts import Plan, VisionLayout
    from impchat.models.convert.vocabulary import Vocabulary

LANGUAGE_FILE = "language.gguf"
VISION_FILE = "vision.onnx"
# Maximum size of the bundle's file relative to the work file it is made of; an 8-bit vision encoder may need 16 bits.
_SHARES = {"f16": 1.0, "q8_0": 0.54, "q4_k_m": 0.36, "q4_0": 0.32, "fp32": 1.01, "fp16": 0.51, "int8": 0.51}


def convert(
    source: Path,
    target: Path,
    *,
    language: str = settings.LANGUAGE_TYPE,
    vision: str = settings.VISION_TYPE,
    id: str | None = None,
    figures: Mapping[str, Any] | None = None,
    begun: Callable[[], object] = lambda: None,
) -> bundle.Bundle:
    """Convert the checkpoint in `source` to a bundle at `target` and return it: see Conversion. If an error ends it,
    nothing remains on disk. `begun` is called after all checks that are possible before the work.

    Raises as Conversion, and ModelError "checkpoint.tensor_shape" before anything is written."""
    import gguf  # noqa: F401  # report a missing package now, not after minutes of work
    import onnx  # noqa: F401

    from impchat.models.convert import layouts
    from impchat.models.convert.checkpoint import Checkpoint

    layouts.recognise(Checkpoint(source))
    discard(target)
    try:
        conversion = Conversion(source, target, language=language, vision=vision, id=id, figures=figures)
        begun()
        for file in conversion.files:
            conversion.take(source / file)
        return conversion.finish()
    finally:
        discard(target)


def discard(target: Path) -> None:
    """Remove the files of an unfinished conversion to `target`, if any."""
    shutil.rmtree(bundle.work_folder(target), ignore_errors=True)


class Conversion:
    """The conversion of a checkpoint to a bundle, one weight file at a time; each may be deleted once it is taken.

    It may be killed at any moment: the next Conversion of the same checkpoint to the same target resumes after the last
    file that was taken completely. The bundle's bytes do not depend on that, or on how the checkpoint is divided into
    files. Only one may run for a target at a time."""

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        language: str = settings.LANGUAGE_TYPE,
        vision: str = settings.VISION_TYPE,
        id: str | None = None,
        entry: catalog.Entry | None = None,
        revision: str | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """`source`: the checkpoint's folder. Of its weight files only a single model.safetensors without an index has
        to exist. `target`: the path of the bundle.

        `language`: "f16", "q8_0", "q4_k_m", "q4_0" or "q4", the recommended 4-bit type; `vision`: "fp32", "fp16" or
        "int8". `id` (None: the name of `target`) selects the catalogue entry that the manifest's name, licence, source
        and defaults come from; another id gets plain ones, or those of `entry`. `revision`: the version of the
        checkpoint; None: a hash of its content. `figures` are copied to the manifest.
        Raises SettingsError: "convert.type" for another type, "convert.id" for an invalid id; ModelError as
        `layouts.plan`, `vocabulary.read` and `bundle.make_way`."""
        from impchat.models.convert import language as language_file
        from impchat.models.convert import layouts, work
        from impchat.models.convert import vision as vision_file
        from impchat.models.convert.checkpoint import Folder

        _one_of("--language", language, tuple(language_file.TYPES))
        _one_of("--vision", vision, tuple(vision_file.TYPES))
        id = entry.id if entry else target.absolute().name if id is None else id
        if not bundle.is_id(id):
            raise SettingsError("convert.id", value=id)
        self._folder = Folder(source)
        self._target = target.absolute()
        self._kinds = (language_file.TYPES[language], vision)
        self._revision = revision
        plan = layouts.plan(self._folder)
        words = _words(self._folder, plan)
        described = _described(self._folder, plan, words, entry or _entry(self._folder, id))
        self._described = replace(described, figures=figures or {})
        bundle.make_way(target)
        with bundle.writing(target):
            self._work = work.Work(
                bundle.work_folder(target),
                plan,
                words,
                mark=_hash(_items(self._folder.hashes)),
            )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the weight files that have not been taken yet."""
        return tuple(file for file in self._folder.weight_files if file not in self._work.taken)

    @property
    def needs_bytes(self) -> int:
        """Maximum disk space of the conversion in addition to the weight files: work files and bundle."""
        language, vision = self._kinds
        bundled = self._work.language_bytes * _SHARES[language] + self._work.eyes_bytes * _SHARES[vision]
        return int(self._work.language_bytes + self._work.eyes_bytes + bundled)

    def take(self, path: Path) -> None:
        """Take the weight file `path`, whose name is one of `files`. All its content is on disk when this returns.

        Raises ModelError: "checkpoint.missing", "checkpoint.broken", "checkpoint.tensors_missing",
        "checkpoint.tensors_unknown", "checkpoint.tensor_shape", "checkpoint.dtype", "checkpoint.overflow" if the file
        is not what it should be, "model.target_unwritable" if the disk is full."""
        assert path.name in self.files, f"{path.name} is not wanted"
        with bundle.writing(self._target):
            self._work.take(path, {name for name, file in self._folder.where.items() if file == path.name})

    def finish(self) -> bundle.Bundle:
        """Once all files are taken: make the bundle, verify it, move it to its place, and remove the work files.

        The measurements are stored in the manifest under "verify"; a bundle that misses a bound is kept as unverified.
        A vision encoder that 8 bits would spoil gets 16.
        Raises ModelError as `language.finish` and `verify.verify`, and "model.target_unwritable"."""
        from impchat.models.convert import language as language_file
        from impchat.models.convert import verify
        from impchat.models.convert.vision import DATA

        assert not self.files, f"{self.files} were not taken"
        folder = self._work.folder / "bundle"
        language, vision = self._kinds
        described = replace(
            self._described,
            image=_image(self._described.image.aspect, self._work.eyes),
            revision=self._revision or f"sha256:{self._content()}",
        )
        with bundle.writing(self._target):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            language_file.finish(self._work.language, folder / LANGUAGE_FILE, language)
            weights = self._work.weights
            vision = verify.write_eyes(weights, folder / VISION_FILE, vision)
            files = {"language": (LANGUAGE_FILE, language), "vision": (VISION_FILE, vision)}
            if (folder / (data := VISION_FILE + DATA)).exists():
                files[bundle.VISION_DATA] = (data, vision)
            sealed = bundle.seal(folder, described, files)
            bundle.write_manifest(verify.measured(sealed, weights))
            bundle.move_in(folder, self._target)
        discard(self._target)
        return bundle.load(self._target)

    def _content(self) -> str:
        """One hash over the tensors and the other files of the checkpoint, independent of how the tensors are divided
        into files."""
        from impchat.models.convert.checkpoint import INDEX

        hashes = {name: found for name, found in self._folder.hashes.items() if name != INDEX}
        tensors = {name: found for file in self._work.taken.values() for name, found in file.items()}
        return _hash([*_items(hashes), *_items(tensors)])


def describe(folder: Folder, id: str) -> bundle.Bundle:
    """The bundle that a conversion of the checkpoint in `folder` would make, without files and revision; see
    `layouts.plan`.

    Raises ModelError as `layouts.plan` and `vocabulary.read`."""
    from impchat.models.convert import layouts

    plan = layouts.plan(folder)
    return _described(folder, plan, _words(folder, plan), _entry(folder, id))


def _words(folder: Folder, plan: Plan) -> Vocabulary:
    from impchat.models.convert import vocabulary

    return vocabulary.read(folder, plan.language.vocab, plan.layout.family.pre_tokenizer)


def _entry(folder: Folder, id: str) -> catalog.Entry:
    return catalog.ENTRIES.get(id) or catalog.Entry(id, id, "", folder.path.absolute().name)


def _described(folder: Folder, plan: Plan, words: Vocabulary, entry: catalog.Entry) -> bundle.Bundle:
    aspect = folder.config.text("image_aspect_ratio")
    if aspect not in get_args(bundle.Aspect):
        raise folder.config.wrong("image_aspect_ratio", aspect)
    return bundle.Bundle(
        path=folder.path,
        id=entry.id,
        name=entry.name,
        family=plan.language.family,
        template="phi3-tight" if words.tight else plan.layout.family.template,
        image=_image(aspect, plan.eyes),  # type: ignore[arg-type]
        text=bundle.TextRule(add_bos=words.add_bos, eos=words.eos, nfc=words.nfc, plain=entry.demo),
        sampling=entry.sampling,
        # llama.cpp attends to all positions, even if the model has a sliding window.
        context_tokens=min(entry.context_tokens, plan.language.window or plan.language.context),
        licence=entry.licence,
        source=entry.source,
        revision="",
        demo=entry.demo,
        files={},
    )


def _image(aspect: bundle.Aspect, eyes: VisionLayout) -> bundle.ImageRule:
    half = (0.5, 0.5, 0.5)
    return bundle.ImageRule(eyes.image_size, aspect, half, half, "bicubic", eyes.tokens)


def _items(values: Mapping[str, str]) -> list[str]:
    return [f"{name} {value}" for name, value in sorted(values.items())]


def _hash(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError("convert.type", option=option, value=value, allowed=", ".join(allowed))
