"""Full-text search for words and symbols in any language, including Chinese words of one or two characters.

In: texts, and a query as typed. Out: text for the index, a query that SQLite's FTS5 always accepts, a snippet of a hit,
and the places of the words in it. FTS5 treats a run of Chinese characters as one word and drops symbols. So index and
query separate each Chinese character with spaces and write each symbol as a word of its own, and each typed word
becomes a phrase.
This file does not know where texts are stored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from impchat import settings

# Characters indexed as separate words: those of scripts that do not always put spaces between words (Thai, Lao,
# Tibetan, Burmese, Khmer; Han with its extensions, kana and Hangul), and everything that is neither letter nor space.
_APART = re.compile(
    r"[\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u31ff\u3400-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff]|[^\w\s]"
)
_SIGNS = frozenset("#%&@")  # punctuation that is part of a name: C#
_MARKUP = frozenset("`^")  # Markdown's, between characters that belong together
_SYMBOL = "\ue000"  # first character of the word that encodes a symbol; FTS5 treats it as a letter
_UNQUOTABLE = {ord('"'): " ", 0: " "}  # characters that would end a quoted phrase
_PART = re.compile(r"[^\W_]+|[^\w\s.,;:!?'\"()\[\]{}/\\*-]")  # of a query: a word, or a symbol
_SNIPPET_CHARS = 120


def index_text(text: str) -> str:
    """`text` as the index stores it: normalised to NFKC, each CJK character and symbol a separate word."""
    return _APART.sub(_word, unicodedata.normalize("NFKC", text))


def _word(found: re.Match[str]) -> str:
    char = found[0]
    if char.isalnum():
        return f" {char} "
    kind = unicodedata.category(char)
    symbol = (kind in ("Sc", "Sm", "So", "Sk", "Me") and char not in _MARKUP) or char in _SIGNS
    if symbol or (kind in ("Mn", "Mc") and "\u0e00" <= char <= "\u17ff"):  # a vowel or tone of one of these scripts
        return f" {_SYMBOL}{ord(char):06x} "
    return char


def match_query(query: str) -> str | None:
    """An FTS5 query for texts that contain every word of `query`, each as a prefix.

    Quotes and operators are treated as text. None if `query` has no word to search for."""
    words = [index_text(word) for word in query[: settings.QUERY_CHARS].split()]
    found = (word.translate(_UNQUOTABLE) for word in words if _SYMBOL in word or any(map(str.isalnum, word)))
    return " ".join(f'"{word}" *' for word in found) or None


def snippet(text: str, query: str) -> str:
    """One line of about 120 characters of `text`, around the earliest occurrence of a word of `query`."""
    line = " ".join(text.split())
    first = next((start for start, _ in marks(line, query)), 0)
    start = max(0, first - _SNIPPET_CHARS // 3)
    end = start + _SNIPPET_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")


def marks(text: str, query: str) -> list[tuple[int, int]]:
    """Where the words of `query` begin words of `text`, without regard to case and accents, as the index finds them:
    ranges of characters (start, end) in order, which neither overlap nor touch."""
    folded, places = _folded(text)
    found = []
    for part in set(_PART.findall(_folded(query[: settings.QUERY_CHARS])[0])):
        at = folded.find(part)
        while at >= 0:
            inside = at > 0 and folded[at - 1].isalnum() and part[0].isalnum()
            if not inside or _APART.match(folded[at - 1]) or _APART.match(part):
                end = places[at + len(part)]  # after accents that are characters of their own
                found.append((places[at], max(end, places[at + len(part) - 1] + 1)))
            at = folded.find(part, at + 1)
    joined: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if joined and start <= joined[-1][1]:
            start, end = joined[-1][0], max(joined.pop()[1], end)
        joined.append((start, end))
    return joined


def _folded(text: str) -> tuple[str, Sequence[int]]:
    """`text` without case and accents, and the place in `text` of each of its characters and of its end."""
    if text.isascii():
        return text.lower(), range(len(text) + 1)
    chars, places = [], []
    for place, char in enumerate(text):
        base = _base(char)
        chars.append(base)
        places += [place] * len(base)
    return "".join(chars), [*places, len(text)]


@lru_cache(maxsize=4096)
def _base(char: str) -> str:
    """`char` without case and accents: none, one or several characters."""
    return "".join(part for part in unicodedata.normalize("NFKD", char).casefold() if not unicodedata.combining(part))
