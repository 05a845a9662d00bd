"""`impchat convert`: an Imp checkpoint becomes a bundle.

In: a checkpoint folder and the types wanted. Out: a bundle, which appears at its place when it is whole.
This file does not know tensors, GGUF or ONNX; the modules beside it do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from impchat import settings
from impchat.errors import SettingsError
from impchat.models import bundle, catalog

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Checkpoint
    from impchat.models.convert.layouts import Weights
    from impchat.models.convert.vocabulary import Vocabulary

LANGUAGE_FILE = "language.gguf"
VISION_FILE = "vision.onnx"


def convert(
    source: Path,
    target: Path,
    *,
    language: str = settings.LANGUAGE_TYPE,
    vision: str = settings.VISION_TYPE,
    id: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> bundle.Bundle:
    """Convert the checkpoint in `source` to a bundle at `target` (see `bundle.place`) and return it.

    `language`: "f16", "q8_0" or "q4"; `vision`: "fp32" or "int8". `id` (None: the name of `target`) picks the entry of
    the catalogue that the manifest's name, licence, source and defaults come from; another id gets plain ones.
    `figures` go into the manifest as they are.
    Raises SettingsError: "convert.type" for another type, "convert.id" for a name that is no id; ModelError as
    `layouts.recognise`, `vocabulary.read`, `bundle.place` and `language.write` do."""
    from impchat.models.convert import language as language_file
    from impchat.models.convert import layouts, vocabulary
    from impchat.models.convert import vision as vision_file
    from impchat.models.convert.checkpoint import Checkpoint

    _one_of("--language", language, tuple(language_file.TYPES))
    _one_of("--vision", vision, tuple(vision_file.TYPES))
    id = target.absolute().name if id is None else id
    if not bundle.is_id(id):
        raise SettingsError("convert.id", value=id)
    checkpoint = Checkpoint(source)
    weights = layouts.recognise(checkpoint)
    words = vocabulary.read(checkpoint, weights.language.vocab)
    entry = catalog.ENTRIES.get(id) or catalog.Entry(id, id, "", source.absolute().name)
    described = _describe(checkpoint, weights, words, entry, figures or {})
    kind = language_file.TYPES[language]
    with bundle.place(target) as folder:
        language_file.write(weights, words, folder / LANGUAGE_FILE, name=entry.id, kind=kind)
        vision_file.write(weights.eyes, weights.read, folder / VISION_FILE, scheme=vision_file.TYPES[vision])
        bundle.seal(folder, described, {"language": (LANGUAGE_FILE, kind), "vision": (VISION_FILE, vision)})
    return bundle.load(target)


def _describe(
    checkpoint: Checkpoint, weights: Weights, words: Vocabulary, entry: catalog.Entry, figures: Mapping[str, Any]
) -> bundle.Bundle:
    """The manifest, but for the files."""
    aspect = checkpoint.config.text("image_aspect_ratio")
    if aspect not in get_args(bundle.Aspect):
        raise checkpoint.config.wrong("image_aspect_ratio", aspect)
    half = (0.5, 0.5, 0.5)
    return bundle.Bundle(
        path=checkpoint.path,
        id=entry.id,
        name=entry.name,
        family=weights.language.family,
        template=weights.layout.family.template,
        image=bundle.ImageRule(weights.eyes.image_size, aspect, half, half, "bicubic", weights.eyes.tokens),  # type: ignore[arg-type]
        text=bundle.TextRule(add_bos=False, eos=(words.eos,)),
        sampling=entry.sampling,
        context_tokens=min(entry.context_tokens, weights.language.context),
        licence=entry.licence,
        source=entry.source,
        revision=f"sha256:{checkpoint.sha256()}",
        demo=entry.demo,
        files={},
        figures=figures,
    )


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError("convert.type", option=option, value=value, allowed=", ".join(allowed))
