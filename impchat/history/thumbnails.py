"""Thumbnails of stored pictures, cached in memory.

In: a history, and the hash of a picture in it. Out: a small JPEG of the picture. All methods may be called from any
thread and read the disk. They do not check access: call `History.image_of` first.
This file does not know who is shown a picture, or where.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

from impchat import images, settings
from impchat.errors import ImpChatError
from impchat.history.store import History


class Thumbnails:
    """The thumbnails of one history. The last `settings.THUMBNAILS_KEPT` in use stay in memory."""

    def __init__(self, history: History) -> None:
        @lru_cache(maxsize=settings.THUMBNAILS_KEPT)
        def make(sha256: str, scale: int) -> bytes:
            if scale == 1:
                return history.thumbnail(sha256)
            return images.thumbnail(history.image_bytes(sha256), scale * settings.THUMBNAIL_SIDE)

        self._make = make

    def get(self, sha256: str, scale: int = 1) -> bytes:
        """The thumbnail of a picture, at most `scale` * `settings.THUMBNAIL_SIDE` pixels wide and high: 2 for screens
        with two pixels per CSS pixel. Those of scale 1 are kept on disk. Raises as `History.thumbnail`."""
        return self._make(sha256, scale)

    def clear(self) -> None:
        """Remove all thumbnails from memory."""
        self._make.cache_clear()

    def available(self, sha256s: Iterable[str]) -> dict[str, bytes]:
        """sha256 -> thumbnail, without those whose file is missing or damaged."""
        found = {}
        for sha256 in sha256s:
            with suppress(ImpChatError):
                found[sha256] = self.get(sha256)
        return found
