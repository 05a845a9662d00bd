"""The files of stored pictures: `images/ab/abcd….jpg` next to the database, each named by the hash of its bytes, and
their thumbnails; or the same in memory.

In: prepared bytes and their `Image`. Out: complete files; writes are atomic. Callers that write must hold the
database's write lock, so that there is one writer at a time. This file does not know who may see the pictures.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from impchat.errors import HistoryError
from impchat.history.database import disk_code
from impchat.messages import Image

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


class ImageFiles:
    """The pictures under `folder`, which is created with the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, image: Image, data: bytes) -> bool:
        """Store `data`. Returns False if the file exists already.

        Raises HistoryError "history.disk_full" or "data.unwritable", and then leaves no file."""
        file = self._path(image)
        try:
            if file.is_file() and file.stat().st_size == image.size_bytes:
                return False
            file.parent.mkdir(parents=True, exist_ok=True)
            self._replace(file, data, sync=True)
        except OSError as exc:
            raise HistoryError(disk_code(exc), path=str(self._folder)) from exc
        return True

    def read(self, image: Image) -> bytes:
        """The stored bytes. Raises HistoryError "history.image_missing" if the file is missing or unreadable."""
        try:
            return self._path(image).read_bytes()
        except OSError as exc:
            raise HistoryError("history.image_missing", file=str(self._path(image))) from exc

    def read_thumbnail(self, image: Image) -> bytes | None:
        """The stored thumbnail, a JPEG. None if there is none, or only a part of one after a power failure."""
        try:
            data = self._thumbnail(image).read_bytes()
        except OSError:
            return None
        return data if data.startswith(_JPEG_START) and data.endswith(_JPEG_END) else None

    def write_thumbnail(self, image: Image, data: bytes) -> None:
        """Store the thumbnail of a stored picture. Does nothing if the disk does not take it: it can be made again."""
        with suppress(OSError):
            self._replace(self._thumbnail(image), data, sync=False)

    def remove(self, image: Image) -> None:
        """Delete the file and its thumbnail, if they exist."""
        self._path(image).unlink(missing_ok=True)
        self._thumbnail(image).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete incomplete files of writers that were killed."""
        for half in self._folder.glob("*.part"):
            half.unlink(missing_ok=True)

    def _replace(self, file: Path, data: bytes, *, sync: bool) -> None:
        temporary = self._folder / f"{file.name}.part"
        try:
            with open(temporary, "wb") as out:
                out.write(data)
                if sync:
                    out.flush()
                    os.fsync(out.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)

    def _thumbnail(self, image: Image) -> Path:
        return self._folder / image.sha256[:2] / f"{image.sha256}-thumbnail.jpg"

    def _path(self, image: Image) -> Path:
        suffix = {"image/png": "png", "image/jpeg": "jpg"}[image.mime]
        return self._folder / image.sha256[:2] / f"{image.sha256}.{suffix}"


class ImagesInMemory:
    """The pictures of a history in memory, with the methods of `ImageFiles`."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def write(self, image: Image, data: bytes) -> bool:
        is_new = image.sha256 not in self._data
        self._data[image.sha256] = data
        return is_new

    def read(self, image: Image) -> bytes:
        return self._data[image.sha256]

    def read_thumbnail(self, image: Image) -> None:
        """None: thumbnails are kept by `Thumbnails` alone."""

    def write_thumbnail(self, image: Image, data: bytes) -> None:
        """Nothing, as above."""

    def remove(self, image: Image) -> None:
        self._data.pop(image.sha256, None)

    def sweep(self) -> None:
        """Nothing: no file can be incomplete."""
