"""Plain spelling, for a small model that was taught no other: typographic marks, capitals and full-width forms.

In: what a person typed. Out: the same as the model's lessons spell it. Only a bundle whose manifest asks for it
(`TextRule.plain`) gets this; every other model reads what was typed. This file does not know models.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from impchat.messages import Prompt

_MARKS = str.maketrans(
    dict.fromkeys("’‘‛ʼ′´＇`", "'") | dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys('"“”„‟″«»‹›「」『』《》〈〉＂', "")
)
_QUOTES = re.compile(r"(?<!\w)'|'(?!\w)")  # the others are apostrophes
_ENDS = re.compile(r" ?[?!？！]+(?: [?!？！]+)*")
_HAN = r"[\u3400-\u9fff\uff00-\uffef\u3001\u3002]"
_CHINESE = re.compile("([？！，：；])")  # in Chinese both forms are plain spelling
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*(?:-3[Bb])?")
_NAMES = {name.lower(): name for name in ("I", "AI", "OK", "Imp", "Imp-3B", "ImpChat", "README")}


def plain(text: str) -> str:
    """`text` in plain spelling, or as it is if nothing would be left: straight apostrophes, no quotation marks, single
    spaces and marks, no words in capitals, full-width forms only as punctuation in Chinese."""
    line = text.translate(_MARKS)
    chinese = re.search(r"[\u3400-\u9fff]", line)
    parts = _CHINESE.split(line) if chinese else [line]
    line = "".join(part if _CHINESE.match(part) else unicodedata.normalize("NFKC", part) for part in parts)
    line = _QUOTES.sub("", "".join(char for char in line if unicodedata.category(char) != "Cf"))
    line = " ".join(re.sub(r"\.{2,}", " ", line).split())
    line = re.sub(r" (?=[,.])", "", _ENDS.sub(_one_mark, line))
    line = _in_small_letters(line)
    if chinese:
        line = re.sub(f"(?<={_HAN}) (?={_HAN})", "", re.sub(r"\.$", "。", line))
    return line or text


def _one_mark(found: re.Match[str]) -> str:
    return next((mark for mark in found[0] if mark in "?？"), found[0].strip()[0])


def _in_small_letters(line: str) -> str:
    """Words in capitals in small letters, and all words if each has a capital; where a sentence begins one stays."""
    each = re.search(r"\b(?<!')[a-z]", line) is None

    def small(found: re.Match[str]) -> str:
        word = found[0]
        if word.lower() in _NAMES:
            return _NAMES[word.lower()]
        if not (each or (word.isupper() and len(word) > 1)):
            return word
        begins = line[max(0, found.start() - 2) : found.start()] in ("", ". ", "? ", "! ")
        return word[0] + word[1:].lower() if begins else word.lower()

    return _WORD.sub(small, line)


def plainly_spelt(prompt: Prompt) -> Prompt:
    """`prompt` with the questions in plain spelling."""
    turns = (replace(turn, text=plain(turn.text)) if turn.role == "user" else turn for turn in prompt.turns)
    return replace(prompt, turns=tuple(turns))
