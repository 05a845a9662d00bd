"""Every sentence a person sees, in English and Chinese: one catalogue for all front ends and errors.

In: a key and the values its sentence names. Out: the sentence. Keys of errors are `error.` + the error's code.
This file does not know who asks or where it is shown.
"""

from __future__ import annotations

from typing import Any

from impchat.texts import en, zh

LANGUAGES = {"en": en.TEXTS, "zh": zh.TEXTS}


def say(key: str, language: str = "en", **values: Any) -> str:
    """The sentence of `key` in `language` ("en" where that language is unknown), its {places} filled from `values`.

    Raises KeyError for an unknown key or a missing value: both are our own mistakes."""
    return LANGUAGES.get(language, en.TEXTS)[key].format(**values)


def size(count: int) -> str:
    """A number of bytes for people, in decimal units as disks and system monitors show them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
