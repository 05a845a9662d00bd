"""What ships with ImpChat, as files: on a phone the package lies inside a zip, and a model is mapped from a real file.

In: a zip and a folder. Out: the folder, with the zip's files in it, each one whole. A file that is missing, was cut
short or has been damaged since is copied again.
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
    """Put the files below `inside` ("impchat/assets/") of the zip `archive` into the folder `target`; give that back.

    Files that are there already are read through once. Several processes may do this at the same time.
    Raises ModelError "model.target_unwritable" where the disk is full or read-only."""
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
    """Beside its place first: a copy that is interrupted leaves nothing that looks like the file."""
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
