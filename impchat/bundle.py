"""A model on disk: a folder with `impchat.json` (the manifest), a language file, a vision file and its data.

In: a folder. Out: a `Bundle`, whose fields define how to run the model; or, when a bundle is made, a folder that
appears at its place only when it is complete.
This file does not know how the files were made, what they contain, or who runs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from impchat.errors import ModelError
from impchat.messages import Sampling
from impchat.prompts import Template as Turns

MANIFEST = "impchat.json"
FORMAT = 1  # increased when older versions of ImpChat can no longer run what a manifest describes

VISION_DATA = "vision_data"  # in `Bundle.files`: the external weights of a large vision file

Family = str  # the architecture's name in llama.cpp
Template = Literal["phi2", "qwen", "phi3", "phi3-tight", "own"]  # own: defined by `Bundle.turns`
Aspect = Literal["square", "pad"]


@dataclass(frozen=True, slots=True)
class ImageRule:
    """How a picture becomes the input of the vision file (`images.model_input`), and how many tokens it takes."""

    size: int  # pixels, both sides
    aspect: Aspect  # "square": resized without keeping the aspect ratio; "pad": padded to a square first
    mean: tuple[float, float, float]  # of values in 0..1
    std: tuple[float, float, float]
    resampling: str  # "bicubic"
    tokens: int  # context tokens that one picture takes


@dataclass(frozen=True, slots=True)
class TextRule:
    """How a prompt begins and how an answer ends."""

    add_bos: bool
    eos: tuple[int, ...]  # token ids, each of which ends an answer; the first also ends earlier answers in a prompt
    stop: tuple[str, ...] = ()  # strings that end an answer and are not part of it
    system: str | None = None  # None: settings.SYSTEM
    nfc: bool = False  # text is normalised to Unicode NFC before it is tokenised
    plain: bool = False  # questions are changed to plain spelling, all that the model was trained on (`spelling`)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the bundle."""

    name: str  # in the bundle's folder
    bytes: int
    sha256: str
    type: str  # "f16", "q8_0", "q4_0", ... or "fp32", "int8"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest and its folder. These fields alone define how to run the model."""

    path: Path
    id: str  # see `is_id`
    name: str  # for display
    family: Family  # of the language model
    template: Template  # of the prompt
    image: ImageRule
    text: TextRule
    sampling: Sampling
    context_tokens: int
    licence: str
    source: str  # where the checkpoint came from
    revision: str  # of the checkpoint
    demo: bool
    files: Mapping[str, File]  # "language"; "mmproj", or "vision" and, if that is large, VISION_DATA
    # Measured when the bundle was made; not used to run it. "verify": the fields of `convert.verify.Figures`, including
    # how likely the right answers are with each prompt template ("templates") and with each way to fit a wide picture
    # into a square ("aspects").
    figures: Mapping[str, Any] = field(default_factory=dict)
    unverified: str = ""  # figures out of bounds; such a bundle runs only if the user asks for it
    turns: Turns | None = None  # the chat template of a family that `Template` does not name

    @property
    def language(self) -> Path:
        """The GGUF file of the language model."""
        return self.path / self.files["language"].name

    @property
    def vision(self) -> Path:
        """The ONNX vision encoder: pixel_values (n, 3, size, size) -> embeddings (n, tokens, hidden), all float32."""
        return self.path / self.files["vision"].name

    @property
    def mmproj(self) -> Path | None:
        """The vision encoder (GGUF) for llama.cpp's mtmd, for models other than Imp; None if `vision` exists."""
        return self.path / self.files["mmproj"].name if "mmproj" in self.files else None

    @property
    def writing(self) -> str | Turns:
        """The template, as `prompts.render` takes it."""
        return self.template if self.turns is None else self.turns

    @property
    def size_bytes(self) -> int:
        return sum(f.bytes for f in self.files.values())

    def verify(self) -> None:
        """Read every file again and check its hash. Raises ModelError "model.checksum" for the first that differs."""
        for file in self.files.values():
            self.verify_file(file)

    def verify_file(self, file: File) -> None:
        """Read one of `files` again and check its hash. Raises ModelError "model.checksum"."""
        if _sha256(self.path / file.name) != file.sha256:
            raise ModelError("model.checksum", path=str(self.path), file=file.name)


def is_id(text: str) -> bool:
    """Whether `text` can be a bundle's id: letters, digits, ".", "_" and "-", the first a letter or a digit."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is not None


def load(path: Path) -> Bundle:
    """The bundle in the folder `path`. Checks the sizes of its files, not their content (see `Bundle.verify`).

    Raises ModelError: "model.missing" (no folder or no manifest), "model.manifest_broken", "model.format_newer",
    "model.file_missing" (a file does not exist), "model.checksum" (a file has another size)."""
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelError("model.missing", path=str(path)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ModelError("model.manifest_broken", path=str(path), detail=str(exc)) from exc
    try:
        bundle = _from_manifest(path, json.loads(text))
    except (ValueError, RecursionError) as exc:
        raise ModelError("model.manifest_broken", path=str(path), detail=str(exc)) from exc
    for file in bundle.files.values():
        place = path / file.name
        if not place.is_file():
            raise ModelError("model.file_missing", path=str(path), file=file.name)
        if place.stat().st_size != file.bytes:
            raise ModelError("model.checksum", path=str(path), file=file.name)
    return bundle


def to_manifest(bundle: Bundle) -> dict[str, Any]:
    """The values of `impchat.json`."""
    values = asdict(bundle)
    del values["path"]
    for unused in ("seed", "stop"):  # never recommended by a manifest; stop strings are under "text"
        del values["sampling"][unused]
    if bundle.text.system is None:
        del values["text"]["system"]
    for unset in ("nfc", "plain"):
        if not values["text"][unset]:
            del values["text"][unset]
    if bundle.turns is None:
        del values["turns"]
    if not bundle.unverified:
        del values["unverified"]
    return {"format": FORMAT} | values


@contextmanager
def place(target: Path) -> Iterator[Path]:
    """Yield an empty folder next to `target` in which to make a bundle; once sealed (`seal`), it is moved to `target`.

    If the block raises, the folder is removed and `target` is unchanged. A killed process leaves the folder
    `.<name>.part`, never an incomplete `target`; the next attempt removes it. An older bundle at `target` is replaced.
    Raises ModelError "model.target_occupied" if `target` is something else, "model.target_unwritable"."""
    part = work_folder(target)
    make_way(target)
    with writing(target):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            yield part
            move_in(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def work_folder(target: Path) -> Path:
    """The folder in which a bundle for `target` is made: next to it, with a name that is not a valid id."""
    target = target.absolute()
    return target.with_name(f".{target.name}.part")


def make_way(target: Path) -> None:
    """Check that a bundle may be placed at `target`, and recover from an interrupted replacement.

    Raises ModelError "model.target_occupied" if `target` is neither a bundle nor empty, "model.target_unwritable"."""
    with writing(target):
        _refuse_foreign(target.absolute())
        _restore(target.absolute())


def move_in(folder: Path, target: Path) -> None:
    """Move the sealed bundle `folder` to `target`, replacing an older one. Even if this fails, `target` is one of the
    two, complete; at worst `make_way` has to restore the older one."""
    target = target.absolute()
    assert (folder / MANIFEST).is_file(), "a bundle is sealed before it is placed"
    old = _old(target)
    try:
        if target.exists():
            target.rename(old)
        folder.rename(target)
    finally:
        _restore(target)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an OSError into ModelError "model.target_unwritable"."""
    try:
        yield
    except OSError as exc:
        path = str(target.absolute())
        raise ModelError("model.target_unwritable", path=path, detail=exc.strerror or str(exc)) from exc


def seal(folder: Path, bundle: Bundle, files: Mapping[str, tuple[str, str]]) -> Bundle:
    """Write the manifest of `folder`: `bundle` with `path` = `folder` and its `files` measured.

    `files`: key as in `Bundle.files` -> (file name in `folder`, type). All files are on disk when this returns."""
    measured = {}
    for key, (name, kind) in files.items():
        file = folder / name
        measured[key] = File(name, file.stat().st_size, _sha256(file, sync=True), kind)
    sealed = replace(bundle, path=folder, files=measured)
    write_manifest(sealed)
    return sealed


def write_manifest(bundle: Bundle) -> None:
    """Write the manifest of `bundle` atomically, replacing an older one."""
    temporary = bundle.path / f"{MANIFEST}.new"
    with temporary.open("w", encoding="utf-8") as out:
        out.write(json.dumps(to_manifest(bundle), ensure_ascii=False, indent=1) + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(bundle.path / MANIFEST)


def _refuse_foreign(target: Path) -> None:
    """Raise unless `target` does not exist, is an empty folder or a bundle: nothing else may be overwritten."""
    if target.is_dir() and ((target / MANIFEST).is_file() or not any(target.iterdir())):
        return
    if target.exists() or target.is_symlink():
        raise ModelError("model.target_occupied", path=str(target))


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _restore(target: Path) -> None:
    """If a replacement stopped between its two renames, restore the older bundle; if it stopped later, remove it."""
    old = _old(target)
    if old.exists():
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)


def _sha256(path: Path, *, sync: bool = False) -> str:
    digest = hashlib.sha256()
    sync = sync and os.access(path, os.W_OK)  # a linked file may belong to another user
    with path.open("r+b" if sync else "rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
        if sync:
            os.fsync(source.fileno())
    return digest.hexdigest()


class _Fields:
    """A JSON object whose fields are read with their type. Raises ValueError that names the field."""

    def __init__(self, values: dict[str, Any], where: str = "") -> None:
        self.values = values
        self.where = where

    def take(self, key: str, *kinds: type) -> Any:
        value = self.values.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{self.where}{key} is missing or of the wrong type")
        return value

    def text(self, key: str) -> str:
        return str(self.take(key, str))

    def number(self, key: str) -> float:
        return float(self.take(key, int, float))

    def count(self, key: str) -> int:
        value = int(self.take(key, int))
        if value < 1:
            raise ValueError(f"{self.where}{key} is below 1")
        return value

    def choice(self, key: str, allowed: Any) -> Any:
        value = self.take(key, str)
        if value not in get_args(allowed):
            raise ValueError(f"{self.where}{key} is {value!r}, not one of {', '.join(get_args(allowed))}")
        return value

    def list_of(self, key: str, *kinds: type) -> tuple[Any, ...]:
        values = self.take(key, list)
        if not all(isinstance(v, kinds) and not isinstance(v, bool) for v in values):
            raise ValueError(f"{self.where}{key} holds a value of the wrong type")
        return tuple(values)

    def inner(self, key: str) -> _Fields:
        return _Fields(self.take(key, dict), f"{self.where}{key}.")


def _from_manifest(path: Path, values: Any) -> Bundle:
    top = _Fields(_Fields({MANIFEST: values}).take(MANIFEST, dict))
    if top.take("format", int) > FORMAT:
        raise ModelError("model.format_newer", path=str(path), found=values["format"], known=FORMAT)
    if not is_id(top.text("id")):
        raise ValueError("id holds other characters than letters, digits, '.', '_' and '-'")
    image, text, sampling = top.inner("image"), top.inner("text"), top.inner("sampling")
    return Bundle(
        path=path,
        id=top.text("id"),
        name=top.text("name"),
        family=top.text("family"),
        template=top.choice("template", Template),
        image=ImageRule(
            size=image.count("size"),
            aspect=image.choice("aspect", Aspect),
            mean=_triple(image, "mean"),
            std=_triple(image, "std"),
            resampling=image.choice("resampling", Literal["bicubic"]),
            tokens=image.count("tokens"),
        ),
        text=TextRule(
            add_bos=text.take("add_bos", bool),
            eos=_not_empty(text, "eos", int),
            stop=text.list_of("stop", str),
            system=text.text("system") if "system" in text.values else None,
            nfc=text.take("nfc", bool) if "nfc" in text.values else False,
            plain=text.take("plain", bool) if "plain" in text.values else False,
        ),
        sampling=Sampling(
            temperature=sampling.number("temperature"),
            top_k=sampling.take("top_k", int),
            top_p=sampling.number("top_p"),
            min_p=sampling.number("min_p"),
            repeat_penalty=sampling.number("repeat_penalty"),
            max_tokens=sampling.count("max_tokens"),
        ),
        context_tokens=top.count("context_tokens"),
        licence=top.text("licence"),
        source=top.text("source"),
        revision=top.text("revision"),
        demo=top.take("demo", bool),
        files={key: _file(top.inner("files").inner(key)) for key in ("language", *_eyes(top.inner("files")))},
        figures=top.take("figures", dict),
        unverified=top.text("unverified") if "unverified" in top.values else "",
        turns=_turns(top.inner("turns")) if top.text("template") == "own" else None,
    )


def _eyes(files: _Fields) -> tuple[str, ...]:
    if "mmproj" in files.values:
        return ("mmproj",)
    return ("vision", VISION_DATA) if VISION_DATA in files.values else ("vision",)


def _turns(fields: _Fields) -> Turns:
    return Turns(
        system=fields.text("system"),
        first=fields.text("first"),
        later=fields.text("later"),
        answer=fields.text("answer"),
        lead=fields.text("lead"),
        markers=fields.list_of("markers", str),
        alone=fields.text("alone"),
        ends=fields.take("ends", bool),
        picture_end=fields.text("picture_end"),
        before=fields.list_of("before", int),
        after=fields.list_of("after", int),
    )


def _triple(fields: _Fields, key: str) -> tuple[float, float, float]:
    values = fields.list_of(key, int, float)
    if len(values) != 3:
        raise ValueError(f"{fields.where}{key} does not hold three numbers")
    return (float(values[0]), float(values[1]), float(values[2]))


def _not_empty(fields: _Fields, key: str, kind: type) -> tuple[Any, ...]:
    values = fields.list_of(key, kind)
    if not values:
        raise ValueError(f"{fields.where}{key} is empty")
    return values


def _file(fields: _Fields) -> File:
    name = fields.text("name")
    if name in {"", ".", ".."} or Path(name).name != name or "\\" in name:  # never a path out of the folder
        raise ValueError(f"{fields.where}name is not a plain file name")
    return File(name, fields.count("bytes"), fields.text("sha256"), fields.text("type"))
