"""Finding words in texts of any language, Chinese words of one or two characters included.

In: texts and what a person typed. Out: what the index keeps, a query that SQLite's FTS5 always accepts, and the place
of a hit. FTS5 takes a run of Chinese characters for one word, so each is set apart by spaces, in the index and in the
query, and a word typed is looked for as a phrase. This file does not know where texts are kept.
"""

from __future__ import annotations

import re
import unicodedata

from impchat import settings

# Han with its extensions, kana and Hangul: scripts whose words are not, or not only, parted by spaces.
_CJK = re.compile(
    r"[\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3100-\u31ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
_UNQUOTABLE = {ord('"'): " ", 0: " "}  # what would end a quoted phrase
_SNIPPET_CHARS = 120


def index_text(text: str) -> str:
    """`text` as the index keeps it: full-width forms as plain ones, each CJK character a word of its own."""
    return _CJK.sub(r" \g<0> ", unicodedata.normalize("NFKC", text))


def match_query(query: str) -> str | None:
    """An FTS5 query for texts that hold every word of `query`, the last letters of a word may be missing.

    Everything typed is taken as words, quotes and operators too. None where there is nothing to look for."""
    words = [word for word in query[: settings.QUERY_CHARS].split() if any(map(str.isalnum, word))]
    return " ".join(f'"{index_text(word).translate(_UNQUOTABLE)}" *' for word in words) or None


def snippet(text: str, query: str) -> str:
    """One line of about 120 characters of `text` around the first word of `query` that is in it."""
    line = " ".join(text.split())
    found = [line.casefold().find(word) for word in query.casefold().split()]
    first = min((place for place in found if place >= 0), default=0)
    start = max(0, first - _SNIPPET_CHARS // 3)
    end = start + _SNIPPET_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
