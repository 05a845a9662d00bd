"""Unpack the files included with ImpChat: on a phone the package is in a zip, but a model must be mapped from a file.

In: a zip and a folder. Out: the folder with complete files. A file that is missing, truncated or damaged is copied
again.
This file does not know what the files are.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path

from impchat.errors import ModelError


def unpack(archive: Path, inside: str, target: Path) -> Path:
    """Unpack the files under `inside` ("impchat/assets/") of the zip `archive` into the folder `target`; return
    `target`.

    The checksums of existing files are verified. Several processes may do this at the same time.
    Raises ModelError "model.target_unwritable" if the disk is full or read-only."""
    try:
        with zipfile.ZipFile(archive) as packed:
            for item in packed.infolist():
                if item.filename.startswith(inside) and not item.is_dir():
                    place = target / item.filename.removeprefix(inside)
                    if not _is_whole(place, item):
                        _copy(packed, item, place)
    except OSError as exc:
        raise ModelError("model.target_unwritable", path=str(target), detail=exc.strerror or str(exc)) from exc
    return target


def _is_whole(place: Path, item: zipfile.ZipInfo) -> bool:
    try:
        if place.stat().st_size != item.file_size:
            return False
        checksum = 0
        with place.open("rb") as source:
            while block := source.read(1 << 20):
                checksum = zlib.crc32(block, checksum)
    except FileNotFoundError:
        return False
    return checksum == item.CRC


def _copy(packed: zipfile.ZipFile, item: zipfile.ZipInfo, place: Path) -> None:
    """Copy to a temporary name first, so that an interrupted copy leaves nothing that looks like the file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        with packed.open(item) as source, part.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
