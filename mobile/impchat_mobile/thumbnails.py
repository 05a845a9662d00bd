"""Small pictures for lists, each made once.

In: the name of a stored picture. Out: a small JPEG of it. This file does not know Flet.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from impchat import images
from impchat.app import App
from impchat.errors import ImpChatError


class Thumbnails:
    """Thumbnails of the pictures in one history. Reads the disk: not for the event loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.get = lru_cache(maxsize=512)(self._get)

    def _get(self, sha256: str) -> bytes | None:
        """None where the picture's file is gone."""
        try:
            return images.thumbnail(self._app.history.image_bytes(sha256))
        except ImpChatError:
            return None

    def all(self, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> thumbnail, of those that can be made."""
        found = {name: self.get(name) for name in names}
        return {name: small for name, small in found.items() if small is not None}
