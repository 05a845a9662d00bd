"""Finding words and symbols in texts of any language, Chinese words of one or two characters included.

In: texts and what a person typed. Out: what the index keeps, a query that SQLite's FTS5 always accepts, and the place
of a hit. FTS5 takes a run of Chinese characters for one word and drops symbols. So each Chinese character is set apart
by spaces and each symbol is written as a word of its own, in the index and in the query, and a word typed is looked
for as a phrase. This file does not know where texts are kept.
"""

from __future__ import annotations

import re
import unicodedata

from impchat import settings

# Characters that are words of their own or may be: those of scripts whose words are not, or not only, parted by spaces
# (Thai, Lao, Tibetan, Burmese, Khmer; Han with its extensions, kana and Hangul), and what is neither letter nor space.
_APART = re.compile(
    r"[\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u31ff\u3400-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\U00020000-\U0003ffff]|[^\w\s]"
)
_SIGNS = frozenset("#%&@")  # punctuation that is part of a name: C#
_MARKUP = frozenset("`^")  # Markdown's, between characters that belong together
_SYMBOL = "\ue000"  # begins the word that stands for a symbol; FTS5 takes it for a letter
_UNQUOTABLE = {ord('"'): " ", 0: " "}  # what would end a quoted phrase
_SNIPPET_CHARS = 120


def index_text(text: str) -> str:
    """`text` as the index keeps it: full-width forms as plain ones, each CJK character and symbol a word of its own."""
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
    """An FTS5 query for texts that hold every word of `query`, the last letters of a word may be missing.

    Everything typed is taken as words, quotes and operators too. None where there is nothing to look for."""
    words = [index_text(word) for word in query[: settings.QUERY_CHARS].split()]
    found = (word.translate(_UNQUOTABLE) for word in words if _SYMBOL in word or any(map(str.isalnum, word)))
    return " ".join(f'"{word}" *' for word in found) or None


def snippet(text: str, query: str) -> str:
    """One line of about 120 characters of `text` around the first word of `query` that is in it."""
    line = " ".join(text.split())
    found = [line.casefold().find(word) for word in query.casefold().split()]
    first = min((place for place in found if place >= 0), default=0)
    start = max(0, first - _SNIPPET_CHARS // 3)
    end = start + _SNIPPET_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
