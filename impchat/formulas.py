r"""Formulas in an answer: `\( \)`, `\[ \]`, `$ $` and `$$ $$` around TeX, which Markdown must leave as it is.

In: the text of an answer. Out: where a formula stands. This file does not know how one is shown.
"""

from __future__ import annotations

import re

FORMULA = re.compile(
    r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$"
    r"|(?<![\\$])\$(?![\s$])(?:\\.|[^\\$\n])+(?<!\s)\$(?!\d)",  # prices are none: "$5 and $6"
    re.DOTALL,
)
