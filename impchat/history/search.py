"""Full-text search for words and symbols in any language, including Chinese words of one or two characters.

In: texts, and a query as typed. Out: text for the index, a query that SQLite's FTS5 always accepts, and a snippet of a
hit. FTS5 treats a run of Chinese characters as one word and drops symbols. So index and query separate each Chinese
character with spaces and write each symbol as a word of its own, and each typed word becomes a phrase.
This file does not know where texts are stored.
"""

from __future__ import annotations

import re
import unicodedata

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
    found = [line.casefold().find(word) for word in query.casefold().split()]
    first = min((place for place in found if place >= 0), default=0)
    start = max(0, first - _SNIPPET_CHARS // 3)
    end = start + _SNIPPET_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
