"""An answer's Markdown, cut into what is shown by itself: words and blocks of code.

In: the text a model wrote, complete or still growing. Out: its parts in order, in which nothing asks for a picture from
elsewhere and formulas keep their signs. This file does not know Flet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from impchat.formulas import FORMULA

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")


@dataclass(frozen=True, slots=True)
class Part:
    """Words, or a block of code in the language that it names ("" where it names none)."""

    text: str
    code: bool = False
    language: str = ""


def parts(text: str) -> list[Part]:
    """At least one part; while `text` grows, all parts but the last stay as they are."""
    found: list[Part] = []
    lines: list[str] = []
    fence, language = "", ""

    def close(code: bool) -> None:
        body = "\n".join(lines)
        if code or body.strip():
            found.append(
                Part(
                    body if code else _literal_formulas(_without_pictures(body)).strip("\n"),
                    code,
                    language if code else "",
                )
            )
        lines.clear()

    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if not fence and mark:
            close(False)
            fence, language = mark[1], mark[2]
        elif fence and mark and not mark[2] and mark[1][0] == fence[0] and len(mark[1]) >= len(fence):
            close(True)
            fence = ""
        else:
            lines.append(line)
    close(bool(fence))
    return found or [Part("")]


def _without_pictures(text: str) -> str:
    """`![name](address)` as a link: a picture in an answer would be fetched from wherever the text says. What looks
    like inline code is changed too: whether it is some depends on more than the characters around it."""
    return text.replace("![", "!\u2060[")


_CODE_OR_FORMULA = re.compile(rf"`+[^`]*`+|{FORMULA.pattern}|\\[()\[\]]", re.DOTALL)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def _literal_formulas(text: str) -> str:
    """Formulas, and the first mark of one that is still open, so that Markdown shows them as they are written."""

    def literal(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith("`") else _PUNCTUATION.sub(r"\\\g<0>", found[0])

    return _CODE_OR_FORMULA.sub(literal, text)
