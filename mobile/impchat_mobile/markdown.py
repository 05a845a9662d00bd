"""An answer's Markdown, split into the parts that are shown separately: text and code blocks.

In: the text of an answer, complete or still growing. Out: its parts in order. Images are changed to links, so that
none is downloaded, and formulas are escaped. This file does not know Flet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from impchat.formulas import FORMULA

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")


@dataclass(frozen=True, slots=True)
class Part:
    """Text, or a code block. `language`: as named by the code block; "" if it names none."""

    text: str
    code: bool = False
    language: str = ""


def parts(text: str) -> list[Part]:
    """The parts of `text`, at least one. While `text` grows, all parts but the last stay the same."""
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
    """Change `![name](address)` to a link: otherwise an image would be downloaded from any address in an answer.
    Inline code is changed too, because recognising it reliably takes a full parser."""
    return text.replace("![", "!\u2060[")


_CODE_OR_FORMULA = re.compile(rf"`+[^`]*`+|{FORMULA.pattern}|\\[()\[\]]", re.DOTALL)
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def _literal_formulas(text: str) -> str:
    """Escape formulas, and the opening mark of an unfinished one, so that Markdown shows them as written."""

    def literal(found: re.Match[str]) -> str:
        return found[0] if found[0].startswith("`") else _PUNCTUATION.sub(r"\\\g<0>", found[0])

    return _CODE_OR_FORMULA.sub(literal, text)
