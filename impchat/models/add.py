"""`impchat models add`: make a bundle of a language model and its mmproj, both GGUF files.

In: two files that llama.cpp can run, of any family. Out: a bundle, with the chat template of the language model as
fixed strings. The files are hard-linked, because they are large and never changed in place; if they are on another
disk, they are copied. This file reads only the files' headers; `trial` runs the models.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from impchat import bundle, prompts, settings
from impchat.engines.local.llama import default_threads
from impchat.errors import ModelError, SettingsError
from impchat.messages import Sampling
from impchat.models import header, trial, turns
from impchat.models.trial import Trial
from impchat.models.turns import Turns

LANGUAGE_FILE = "language.gguf"
MMPROJ_FILE = "mmproj.gguf"
# For files without a chat template: name -> its strings, and the marker that ends an answer (None: eos)
TEMPLATES: dict[str, tuple[str, str | None]] = {
    "vicuna": ("phi2", None),
    "qwen": ("qwen", "<|im_end|>"),
    "phi3": ("phi3", "<|end|>"),
}
_PADDED = ("mlp", "ldp", "ldpv2")  # projectors whose pictures llama.cpp pads to a square
_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 7: "q8_0", 14: "q4_k_s", 15: "q4_k_m", 17: "q5_k_m", 18: "q6_k", 32: "bf16"}
_SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


def add(
    language: Path, mmproj: Path, target: Path, *, id: str, name: str | None = None, template: str | None = None
) -> bundle.Bundle:
    """Make a bundle of two GGUF files at `target` (see `bundle.place`) and return it.

    `name`: for display; None: the name in the language model's header. `template`: one of `TEMPLATES`; None: the chat
    template in the language model's header.
    Raises SettingsError: "convert.id", "add.template_unknown"; ModelError: "add.not_language", "add.not_mmproj",
    "add.architecture" (unknown to llama.cpp), "add.no_template", "add.template_unfit", and those of `header.read`,
    `trial.run`, `turns.derive` and `bundle.place`; EngineError as `trial.run`."""
    if not bundle.is_id(id):
        raise SettingsError("convert.id", value=id)
    if template is not None and template not in TEMPLATES:
        raise SettingsError("add.template_unknown", value=template, allowed=", ".join(TEMPLATES))
    names = (language.name, mmproj.name)
    language, mmproj = language.resolve(), mmproj.resolve()  # a download is often a link into a cache
    said, eyes = header.read(language), header.read(mmproj)
    if said.get("general.architecture") == "clip":
        raise ModelError("add.not_language", path=str(language))
    if eyes.get("general.architecture") != "clip":
        raise ModelError("add.not_mmproj", path=str(mmproj))
    size = _size(eyes, mmproj)
    tried = _tried(language, mmproj, size, said)
    spoken = _turns(said, tried, language, template)
    described = _describe(said, eyes, tried, spoken, size)
    default_system = None if template == "vicuna" else ""  # Vicuna's is settings.SYSTEM; others have their own
    described = replace(
        described,
        path=target,
        id=id,
        name=name or str(said.get("general.name") or names[0].removesuffix(".gguf")),
        text=replace(described.text, system=default_system),
        source=", ".join(names),
    )
    with bundle.place(target) as folder:
        _bring(language, folder / LANGUAGE_FILE)
        _bring(mmproj, folder / MMPROJ_FILE)
        bundle.seal(folder, described, {"language": (LANGUAGE_FILE, _type(said)), "mmproj": (MMPROJ_FILE, _type(eyes))})
    return bundle.load(target)


def _tried(language: Path, mmproj: Path, size: int, said: dict[str, Any]) -> Trial:
    try:
        small = language.stat().st_size + mmproj.stat().st_size < settings.SMALL_MODEL_BYTES
        return trial.run(language, mmproj, size, 1 if small else default_threads())
    except ModelError as exc:
        if exc.code == "model.load_failed" and "unknown model architecture" in str(exc.values.get("detail")):
            architecture = said.get("general.architecture")
            raise ModelError("add.architecture", path=str(language), architecture=architecture) from exc
        raise


def _size(eyes: dict[str, Any], mmproj: Path) -> int:
    size = eyes.get("clip.vision.image_size")
    if not isinstance(size, int) or not 0 < size <= settings.IMAGE_STORED_SIDE:
        raise ModelError("mmproj.not_vision", path=str(mmproj))
    return size


def _turns(said: dict[str, Any], tried: Trial, language: Path, template: str | None) -> Turns:
    """The chat template, with the strings and tokens around a picture."""
    specials = tried.specials
    if template is not None:
        known, end = TEMPLATES[template]
        strings = prompts.TEMPLATES[known]
        if end is not None and end not in specials.values():
            raise ModelError("add.template_unfit", template=template, marker=end)
        found = Turns(replace(strings, alone=strings.later.lstrip()), end, ())
    else:
        source = said.get("tokenizer.chat_template")
        if not isinstance(source, str) or not source.strip():
            raise ModelError("add.no_template", path=str(language), names=", ".join(TEMPLATES))
        bos, eos = specials.get(tried.bos, ""), specials.get(tried.eos, "")
        ends = [specials[token] for token in tried.ends]
        found = turns.derive(source, bos=bos, eos=eos, markers=specials.values(), ends=ends)
    strings = replace(found.template, before=tried.before, after=tried.after)
    if tried.adds_space:
        strings = replace(strings, lead=strings.lead.removeprefix(" "))
    return replace(found, template=strings)


def _describe(said: dict[str, Any], eyes: dict[str, Any], tried: Trial, spoken: Turns, size: int) -> bundle.Bundle:
    """The manifest, without the fields that the caller chooses."""
    bos = tried.specials.get(tried.bos, "")
    writes_bos = bool(bos) and str(spoken.template.alone).startswith(bos)
    first = next((t for t in tried.ends if tried.specials[t] == spoken.end), tried.eos)
    projector = str(eyes.get("clip.projector_type") or eyes.get("clip.vision.projector_type"))
    return bundle.Bundle(
        path=Path(),
        id="",
        name="",
        family=str(said.get("general.architecture")),
        template="own",
        image=bundle.ImageRule(
            size=size,
            aspect="pad" if projector in _PADDED else "square",
            mean=_triple(eyes.get("clip.vision.image_mean")),
            std=_triple(eyes.get("clip.vision.image_std")),
            resampling="bicubic",
            tokens=tried.tokens,
        ),
        text=bundle.TextRule(
            add_bos=tried.adds_bos and not writes_bos,
            eos=(first, *(t for t in tried.ends if t != first)),
            stop=spoken.stop,
        ),
        sampling=_sampling(said),
        context_tokens=min(tried.context_tokens, max(settings.CONTEXT_TOKENS, 3 * tried.tokens)),
        licence=str(said.get("general.license") or "not stated in the files"),
        source="",
        revision=str(said.get("general.version") or "not stated in the files"),
        demo=False,
        files={},
        figures={"projector": projector},
        turns=spoken.template,
    )


def _sampling(said: dict[str, Any]) -> Sampling:
    """The sampling values that the file recommends and that are in range; defaults for the others."""
    values: dict[str, Any] = {}
    for ours, theirs in _SAMPLING.items():
        value = said.get(f"general.sampling.{theirs}")
        low, high = settings.SAMPLING_RANGES[ours]
        if isinstance(value, int | float) and low <= value <= high:
            values[ours] = int(value) if ours == "top_k" else round(float(value), 6)
    return Sampling(**values)


def _triple(values: Any) -> tuple[float, float, float]:
    """For display only: llama.cpp itself reads these values from the file."""
    if not isinstance(values, list) or len(values) != 3:
        return (0.5, 0.5, 0.5)
    first, second, third = (round(float(v), 6) for v in values)
    return (first, second, third)


def _type(said: dict[str, Any]) -> str:
    number = said.get("general.file_type")
    return _TYPES.get(number, f"type {number}") if isinstance(number, int) else "unknown"


def _bring(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise
        shutil.copyfile(source, target)
