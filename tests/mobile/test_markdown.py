"""Answers in Markdown on the phone, as Flutter renders them."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from impchat_mobile import markdown


@pytest.mark.parametrize(
    "text",
    [r"\(a^2\) and $b_1 * c_1 * d$", "\\[\n\\frac{a}{b}\n- \\{c\\}\n\\]", r"\(still *open*", "$5 and $6"],
)
def test_a_formula_keeps_its_symbols_on_the_phone(text: str) -> None:
    (part,) = markdown.parts(text)
    shown = re.sub(r"</?[^>]*>", "", MarkdownIt().render(part.text)).strip()
    assert shown == text.replace("*open*", "open")


def test_code_keeps_its_backslashes_on_the_phone() -> None:
    said = "`\\(x\\)`\n\n```\n\\[y\\]\n```"
    assert [part.text for part in markdown.parts(said)] == ["`\\(x\\)`", "\\[y\\]"]
