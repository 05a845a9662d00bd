"""Streaming detokenizer: token bytes -> text that can be shown at once.

In: the bytes of each token. Out: whole characters, without the spaces that begin an answer and without any part of a
stop string. This file does not know the tokenizer or the engine.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """The text of one growing answer.

    >>> words = Detokenizer(stop=["STOP"])
    >>> words.add(b" Gr\\xc3"), words.add(b"\\xbcn, S"), words.add(b"T"), words.add(b"AR")
    ('Gr', 'ün, ', '', 'STAR')
    >>> words.add(b" and STOPPED"), words.stopped
    (' and ', True)
    """

    def __init__(self, stop: Sequence[str] = (), begun: bool = False) -> None:
        """`begun`: the answer continues a text, so a space at its beginning is kept."""
        self._stop = tuple(s for s in stop if s)
        # An invalid byte becomes U+FFFD; the first bytes of a character are held back until the rest arrive.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # text that may be the beginning of a stop string
        self._begun = begun
        self.stopped = False  # a stop string was found; the answer ends before it
        self.size_bytes = 0  # of the returned text, including the leading spaces that were removed

    def add(self, piece: bytes) -> str:
        """The text that `piece` completes; empty once `stopped`."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece)
        found = min((at for s in self._stop if (at := self._held.find(s)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._give(found)
        return self._give(len(self._held) - self._beginning_of_stop())

    def end(self) -> str:
        """The text held back so far, for when no token follows. An incomplete character at the end is dropped."""
        return "" if self.stopped else self._give(len(self._held))

    def _beginning_of_stop(self) -> int:
        """The number of characters at the end of the held text that may begin a stop string."""
        longest = max((len(s) for s in self._stop), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(s.startswith(self._held[-size:]) for s in self._stop):
                return size
        return 0

    def _give(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self.size_bytes += len(text.encode())
        if not self._begun:
            text = text.lstrip(" ")
            self._begun = bool(text)
        return text
