"""Plain spelling, for a small model trained on nothing else: no typographic marks, all capitals or full-width forms.

In: the text a person typed. Out: the same text as the training data spells it. Applied only for a bundle whose
manifest sets `TextRule.plain`; every other model reads the text as typed. This file does not know models.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from impchat.messages import Prompt

_MARKS = str.maketrans(
    dict.fromkeys("’‘‛ʼ′´＇`", "'") | dict.fromkeys("‐‑‒–—―−", "-") | dict.fromkeys('"“”„‟″«»‹›「」『』《》〈〉＂', "")
)
_QUOTES = re.compile(r"(?<!\w)'|'(?!\w)")  # a ' inside a word is an apostrophe and stays
_ENDS = re.compile(r" ?[?!？！]+(?: [?!？！]+)*")
_HAN = r"[\u3400-\u9fff\uff00-\uffef\u3001\u3002]"
_CHINESE = re.compile("([？！，：；])")  # in Chinese text the full-width forms stay
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*(?:-3[Bb])?")
_NAMES = {name.lower(): name for name in ("I", "AI", "OK", "Imp", "Imp-3B", "ImpChat", "README")}


def plain(text: str) -> str:
    """`text` in plain spelling, or unchanged if nothing would be left: straight apostrophes, no quotation marks, single
    spaces and end marks, no words in capitals, full-width forms only as punctuation in Chinese."""
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
    """Lower-case the words in capitals, or all words if each begins with a capital. The first word of a sentence keeps
    its capital."""
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
    """`prompt` with its questions in plain spelling."""
    turns = (replace(turn, text=plain(turn.text)) if turn.role == "user" else turn for turn in prompt.turns)
    return replace(prompt, turns=tuple(turns))
