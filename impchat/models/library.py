"""The models on this machine: which exist, which one runs by default, and removing one.

In: the data folder. Out: `Model`s, each with its catalogue entry, what is on disk and what is wrong with it; the saved
choice, the accepted licences, and which unverified models may run.
This file does not know how a model gets here or how it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from impchat import bundle as bundles
from impchat import paths, settings
from impchat.bundle import Bundle
from impchat.errors import ImpChatError, ModelError
from impchat.files import write_atomic
from impchat.locks import FileLock
from impchat.models import catalog
from impchat.models.catalog import Entry

PULL = ".pull.json"  # in a checkpoint's folder: the plan of a download, until it is finished
_CHOICE = "chosen-model"
_LICENCES = "licences.json"
_PERMITTED = "unverified.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue or on disk."""

    id: str
    entry: Entry | None  # None: not in the catalogue
    bundle: Bundle | None  # None: not on disk, or broken
    problem: ImpChatError | None  # what is wrong with the bundle on disk
    unfinished: str  # argument of `impchat models pull` that resumes an unfinished download; "": none
    disk_bytes: int  # bundle, unfinished work and kept checkpoint together

    @property
    def name(self) -> str:
        known = self.bundle or self.entry
        return known.name if known else self.id

    @property
    def memory_bytes(self) -> int:
        """Approximate memory that it takes to run; 0: unknown."""
        if self.bundle:
            return catalog.memory_bytes(self.entry, self.bundle.size_bytes, self.bundle.context_tokens)
        if self.entry and self.entry.bundle_bytes:
            return catalog.memory_bytes(self.entry, self.entry.bundle_bytes, self.entry.context_tokens)
        return 0


# What is here


def models(data: Path) -> list[Model]:
    """The demo, the catalogue in its order, then other models in the data folder. Unfinished work has no bundle."""
    return [_look(data, id) for id in (*catalog.ENTRIES, *sorted(_here(data) - catalog.ENTRIES.keys()))]


def find(data: Path, id: str) -> Model:
    """The model with this id. Raises ModelError "model.unknown" if it is neither in the catalogue nor on disk."""
    if id in catalog.ENTRIES or id in _here(data):
        return _look(data, id)
    raise ModelError("model.unknown", model=id, folder=str(paths.models_dir(data)))


def resolve(data: Path, model: str | Path) -> Bundle:
    """The bundle that `model` names, as found by `locate`, for running it.

    Raises as `locate`, and ModelError "model.unverified" if it is unverified and the user has not permitted it (see
    `permit`)."""
    bundle = locate(data, model)
    if bundle.unverified and not is_permitted(data, bundle):
        raise ModelError("model.unverified", name=bundle.name, model=str(model), figures=bundle.unverified)
    return bundle


def locate(data: Path, model: str | Path) -> Bundle:
    """The bundle that `model` names: the id of one in the data folder `data` or of the demo, or a bundle's folder.

    Raises ModelError "model.unknown" for an unknown id, "model.not_here" for one that could be downloaded, and those of
    `bundle.load`."""
    if isinstance(model, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", model):
        installed = paths.models_dir(data) / model
        if installed.is_dir():
            return bundles.load(installed)
        if model == settings.DEMO_MODEL:
            return bundles.load(paths.demo_bundle())
        if not Path(model).is_dir():
            if model in catalog.ENTRIES:
                raise ModelError("model.not_here", model=model)
            raise ModelError("model.unknown", model=model, folder=str(paths.models_dir(data)))
    return bundles.load(Path(os.path.expanduser(model)))


def _look(data: Path, id: str) -> Model:
    entry, bundle, problem = catalog.ENTRIES.get(id), None, None
    folder, source = paths.models_dir(data) / id, paths.checkpoints_dir(data) / id
    if id == settings.DEMO_MODEL and not folder.is_dir():
        folder = paths.demo_bundle()
    if folder.is_dir():
        try:
            bundle = bundles.load(folder)
        except ModelError as exc:
            problem = exc
    used = sum(map(disk_bytes, (folder, bundles.work_folder(paths.models_dir(data) / id), source)))
    return Model(id, entry, bundle, problem, _unfinished(source, entry), used)


def _unfinished(checkpoint: Path, entry: Entry | None) -> str:
    try:
        source = json.loads((checkpoint / PULL).read_text(encoding="utf-8"))["source"]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError):
        source = checkpoint.name
    return entry.id if entry else str(source)


def _here(data: Path) -> set[str]:
    """The ids of all models on disk, including unfinished downloads and kept checkpoints."""
    parents = [folder for folder in (paths.models_dir(data), paths.checkpoints_dir(data)) if folder.is_dir()]
    return {path.name for folder in parents for path in folder.iterdir() if path.is_dir() and bundles.is_id(path.name)}


def disk_bytes(folder: Path) -> int:
    """Bytes that the files below `folder` occupy; 0 if it does not exist."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.stat(os.path.join(where, name), follow_symlinks=False)
            except FileNotFoundError:  # moved by a running download
                continue
            blocks = getattr(found, "st_blocks", None)  # a preallocated file takes no space yet
            total += found.st_size if blocks is None else min(found.st_size, blocks * 512)
    return total


# The choice


def choose(data: Path, model: str | Path, *, unverified: bool = False) -> Bundle:
    """Save `model`, as `resolve` takes it, as the default. The bundle is loaded first, so that one that cannot run is
    never saved. `unverified`: the user asked to run it even if it is unverified.

    Raises as `resolve`, and ModelError "model.choice_unwritable"."""
    if unverified:
        permit(data, locate(data, model))
    bundle = resolve(data, model)
    place = bundle.path.absolute()
    inside = place in (paths.models_dir(data).absolute() / place.name, paths.demo_bundle().absolute())
    _write(data / _CHOICE, place.name if inside else str(place))
    return bundle


def chosen(data: Path) -> str | None:
    """What `choose` saved: an id, or the path of a folder elsewhere; None: nothing."""
    try:
        return (data / _CHOICE).read_text(encoding="utf-8", errors="surrogateescape").strip() or None
    except OSError:
        return None


def forget(data: Path) -> None:
    """Remove the saved choice: the demo runs by default."""
    (data / _CHOICE).unlink(missing_ok=True)


def default(data: Path) -> Bundle:
    """The saved choice, or the demo without one.

    Raises ModelError "model.choice_gone" if the chosen model no longer exists, and those of `bundle.load`."""
    wanted = chosen(data)
    if wanted is None:
        return resolve(data, settings.DEMO_MODEL)
    try:
        return resolve(data, wanted if bundles.is_id(wanted) else Path(wanted))
    except ModelError as exc:
        if exc.code in ("model.unknown", "model.missing", "model.not_here"):
            raise ModelError("model.choice_gone", model=wanted) from exc
        raise


# Removing


@contextmanager
def busy(data: Path, id: str) -> Iterator[None]:
    """Keep other processes from downloading or removing this model. Raises ModelError "model.busy" if one does."""
    folder = paths.models_dir(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{id}.lock")
        held = lock.acquire()
    except OSError as exc:
        raise ModelError("model.target_unwritable", path=str(folder), detail=exc.strerror or str(exc)) from exc
    if not held:
        raise ModelError("model.busy", model=id)
    try:
        yield
    finally:
        lock.release()


def remove(data: Path, id: str, *, chosen_too: bool = False) -> int:
    """Delete the model, an unfinished download of it and its kept checkpoint; return the number of bytes freed.

    `chosen_too`: also if it is the saved choice, which is then removed.
    Raises ModelError: "model.in_use" (it is the choice), "model.bundled" (the demo, which is part of ImpChat),
    "model.unknown" or "model.not_here" (nothing to delete), "model.busy", "model.not_removed"."""
    found = find(data, id)
    folder = paths.models_dir(data) / id
    gone = folder.with_name(f".{id}.gone")
    places = [folder, gone, bundles.work_folder(folder), paths.checkpoints_dir(data) / id]
    if not any(place.exists() for place in places):
        raise ModelError("model.bundled" if id == settings.DEMO_MODEL else "model.not_here", model=id)
    if chosen(data) == id and not chosen_too:
        raise ModelError("model.in_use", model=id)
    with busy(data, id):
        try:
            if folder.exists():  # renamed first: a kill in between leaves no incomplete bundle
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)
            if chosen(data) == id:
                forget(data)
            for place in places:
                if place.exists():
                    shutil.rmtree(place)
        except OSError as exc:
            raise ModelError("model.not_removed", model=id, detail=exc.strerror or str(exc)) from exc
    return found.disk_bytes


# What the user agreed to


def is_accepted(data: Path, licence: str) -> bool:
    """Whether the owner of the data folder has accepted this text."""
    return licence in _agreed(data / _LICENCES)


def accept(data: Path, licence: str) -> None:
    """Save that the text was accepted, and when."""
    _agree(data / _LICENCES, licence)


def is_permitted(data: Path, bundle: Bundle) -> bool:
    """Whether the owner of the data folder permitted running exactly these weights although they are unverified."""
    return bundle.files["language"].sha256 in _agreed(data / _PERMITTED)


def permit(data: Path, bundle: Bundle) -> None:
    """Save that running it was permitted, and when. Does nothing for a verified bundle."""
    if bundle.unverified:
        _agree(data / _PERMITTED, bundle.files["language"].sha256)


def _agree(path: Path, what: str) -> None:
    agreed = _agreed(path) | {what: datetime.now(UTC).isoformat(timespec="seconds")}
    _write(path, json.dumps(agreed, ensure_ascii=False, indent=1))


def _agreed(path: Path) -> dict[str, str]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # better to ask again than not at all
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, text: str) -> None:
    """Write a small file atomically. Raises ModelError "model.choice_unwritable"."""
    try:
        paths.ensure_data_dir(path.parent)
        write_atomic(path, f"{text}\n".encode(errors="surrogateescape"))
    except OSError as exc:
        raise ModelError("model.choice_unwritable", path=str(path), detail=exc.strerror or str(exc)) from exc
