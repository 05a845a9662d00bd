"""The catalogue of all user-visible sentences, in English and Chinese, for all front ends and errors.

In: a key and the values for its placeholders. Out: the sentence. The key of an error is `error.` + its code. This file
does not know the caller or where the sentence is shown.
"""

from __future__ import annotations

from typing import Any

from impchat.texts import en, zh

LANGUAGES = {"en": en.TEXTS, "zh": zh.TEXTS}


def say(key: str, language: str = "en", **values: Any) -> str:
    """Return the sentence for `key` in `language`, with its {placeholders} filled from `values`.

    An unknown language falls back to English. Raises KeyError for an unknown key or a missing value; both are bugs.
    """
    return LANGUAGES.get(language, en.TEXTS)[key].format(**values)


def size(count: int) -> str:
    """Format a number of bytes in decimal units, as disks and system monitors do."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
