"""Copy a whole bundle from a paired computer, or from any address if the hash of its manifest is known.

In: the address of its manifest and that file's SHA-256, which authenticates all other files. Out: the bundle in the
data folder, which appears at its place when it is complete. Downloaded data stay in the work folder next to it if the
copy is interrupted; the next copy resumes there, even within a file.
This file does not know who offers a bundle.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import bundle as bundles
from impchat import paths, settings
from impchat.bundle import MANIFEST, Bundle
from impchat.errors import ModelError
from impchat.models import library
from impchat.texts import size

if TYPE_CHECKING:
    import httpx

_NOTE = "copy.json"  # in the work folder: the source of the copy
_PARTIAL = ".partial"
_BLOCK_BYTES = 1 << 18
_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """The address of a bundle's files: `base` + "/" + file name."""

    base: str
    sha256: str  # of the manifest
    server: str = ""  # id of the paired computer that has it; "": a public address


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A copy that was started and not finished."""

    id: str
    name: str
    source: Source
    done: int  # bytes
    total: int


Watch = Callable[[int, int], None]  # (bytes already here, bytes in total)


def source(address: str, sha256: str) -> Source:
    """The bundle that a user names by its manifest's address and SHA-256.

    Raises ModelError "copy.address" if one of them is not valid."""
    address, sha256 = address.strip(), sha256.strip().lower()
    if not re.fullmatch(r"https?://[^\s/]+/\S+", address) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelError("copy.address")
    return Source(address.removesuffix(f"/{MANIFEST}").rstrip("/"), sha256)


def unfinished(data: Path) -> list[Unfinished]:
    """The copies in the data folder `data` that were started and neither finished nor discarded."""
    found = []
    for note in sorted(paths.models_dir(data).glob(f".*.part/{_NOTE}")):
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            done = sum(path.stat().st_size for path in note.parent.iterdir() if path.name != _NOTE)
            found.append(Unfinished(kept["id"], kept["name"], Source(**kept["source"]), done, kept["total"]))
        except (OSError, ValueError, KeyError, TypeError):  # an incomplete note: the next copy starts over
            continue
    return found


def copy(data: Path, source: Source, http: httpx.Client, watch: Watch, stop: threading.Event) -> Bundle | None:
    """Fetch what is missing and return the bundle; None if `stop` was set. `http`: a client with access to the files.

    Raises ModelError "copy.unreachable" (the next copy resumes), "copy.refused" (no longer paired), "copy.corrupt",
    "copy.strange", "download.no_space", "model.busy", "model.target_occupied", "model.target_unwritable", and those of
    `bundle.load`."""
    with _connection_errors(source):
        manifest = _manifest(http, source)
    values = json.loads(manifest)
    target = paths.models_dir(data) / values["id"]
    with library.busy(data, values["id"]), bundles.writing(target):
        bundles.make_way(target)
        part = bundles.work_folder(target)
        _begin(part, source, values, len(manifest))
        files = [(file["name"], int(file["bytes"]), file["sha256"]) for file in values["files"].values()]
        total = len(manifest) + sum(length for _, length, _ in files)
        _check_room(part, total - library.disk_bytes(part))
        before = 0
        for name, length, digest in files:
            with _connection_errors(source):
                report = partial(_of_all, watch, before, total)
                whole = _fetch(http, f"{source.base}/{name}", part / name, length, report, stop)
            if not whole:
                return None
            _verify(part / name, digest, source)
            before += length
        (part / _NOTE).unlink()
        (part / MANIFEST).write_bytes(manifest)
        bundles.load(part)
        bundles.move_in(part, target)
    return bundles.load(target)


def _of_all(watch: Watch, before: int, total: int, done: int) -> None:
    watch(before + done, total)


def _manifest(http: httpx.Client, source: Source) -> bytes:
    response = http.get(f"{source.base}/{MANIFEST}")
    response.raise_for_status()
    data = response.content
    if len(data) > _MANIFEST_BYTES or hashlib.sha256(data).hexdigest() != source.sha256:
        raise ModelError("copy.corrupt", file=MANIFEST)
    try:
        values = json.loads(data)
        names = [values["id"], *(file["name"] for file in values["files"].values())]
        if not all(bundles.is_id(name) for name in names):  # none may name a file outside the folder
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError("copy.strange", base=source.base) from exc
    return data


def _begin(part: Path, source: Source, values: dict[str, Any], manifest_bytes: int) -> None:
    """Keep the work folder if it was started with the same manifest; otherwise empty it."""
    note = {
        "id": values["id"],
        "name": values["name"],
        "source": {"base": source.base, "sha256": source.sha256, "server": source.server},
        "total": manifest_bytes + sum(int(file["bytes"]) for file in values["files"].values()),
    }
    try:
        same = json.loads((part / _NOTE).read_text(encoding="utf-8"))["source"]["sha256"] == source.sha256
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    (part / _NOTE).write_text(json.dumps(note, ensure_ascii=False), encoding="utf-8")


def _fetch(
    http: httpx.Client, url: str, place: Path, length: int, watch: Callable[[int], None], stop: threading.Event
) -> bool:
    """Fetch the file to its full length and return True; False if stopped."""
    half = place.with_name(place.name + _PARTIAL)
    if place.is_file():
        watch(length)
        return True
    done = half.stat().st_size if half.exists() else 0
    if done < length:
        with http.stream("GET", url, headers={"range": f"bytes={done}-"} if done else {}) as response:
            response.raise_for_status()
            if response.status_code != 206:
                done = 0
            with open(half, "ab" if done else "wb") as out:
                for block in response.iter_bytes(_BLOCK_BYTES):
                    out.write(block)
                    done += len(block)
                    watch(min(done, length))
                    if stop.is_set():
                        return False
    half.replace(place)
    watch(length)
    return True


def _verify(place: Path, digest: str, source: Source) -> None:
    with open(place, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() == digest:
            return
    place.unlink()
    raise ModelError("copy.corrupt", file=place.name)


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if needed > free:
        raise ModelError("download.no_space", path=str(part.parent), needed=size(needed), free=size(free))


@contextmanager
def _connection_errors(source: Source) -> Iterator[None]:
    """Turn connection errors into ModelError; what was fetched is kept."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as exc:
        refused = exc.response.status_code in (401, 403)
        raise ModelError("copy.refused" if refused else "copy.strange", base=source.base) from exc
    except httpx.HTTPError as exc:
        raise ModelError("copy.unreachable", base=source.base) from exc


def forget(data: Path, id: str) -> None:
    """Discard an unfinished copy. Raises ModelError "model.busy", "model.target_unwritable"."""
    part = bundles.work_folder(paths.models_dir(data) / id)
    with library.busy(data, id), bundles.writing(part):
        if part.exists():
            shutil.rmtree(part)


def connection() -> httpx.Client:
    """A client for public addresses."""
    import httpx

    waits = httpx.Timeout(settings.DOWNLOAD_TIMEOUT_S)
    return httpx.Client(timeout=waits, trust_env=False, follow_redirects=True)
