"""Token bytes -> text that may be shown at once.

In: the bytes of each token as it comes. Out: whole characters, without the space that begins an answer, and never a
part of a stop string. This file does not know the tokenizer or the engine.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class Detokenizer:
    """The text of one answer in the making.

    >>> words = Words(stop=["STOP"])
    >>> words.add(b" Gr\\xc3"), words.add(b"\\xbcn, S"), words.add(b"T"), words.add(b"AR")
    ('Gr', 'ün, ', '', 'STAR')
    >>> words.add(b" and STOPPED"), words.stopped
    (' and ', True)
    """

    def __init__(self, stop: Sequence[str] = (), begun: bool = False) -> None:
        """`begun`: there is text before it already, and a space that comes first belongs between the two."""
        self._stop = tuple(s for s in stop if s)
        # A byte that belongs to no character becomes U+FFFD; the bytes of a half one wait for the rest.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # may be the beginning of a stop string
        self._begun = begun
        self.stopped = False  # a stop string came up: the answer ends before it
        self.size_bytes = 0  # of the text given out, with the spaces that were taken off the beginning

    def add(self, piece: bytes) -> str:
        """The text that `piece` completes. Nothing once `stopped`."""
        if self.stopped:
            return ""
        self._held += self._decoder.decode(piece)
        found = min((at for s in self._stop if (at := self._held.find(s)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._give(found)
        return self._give(len(self._held) - self._beginning_of_stop())

    def end(self) -> str:
        """What was held back, when nothing follows. Half a character at the end is left out."""
        return "" if self.stopped else self._give(len(self._held))

    def _beginning_of_stop(self) -> int:
        """How many characters at the end of the held text may be the beginning of a stop string."""
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
