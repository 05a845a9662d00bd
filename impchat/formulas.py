r"""Find formulas in an answer: `\( \)`, `\[ \]`, `$ $` and `$$ $$` around TeX, which Markdown must not interpret.

In: the text of an answer. Out: the positions of formulas. This file does not know how they are shown.
"""

from __future__ import annotations

import re

FORMULA = re.compile(
    r"\\\(.+?\\\)|\\\[.+?\\\]|\$\$.+?\$\$"
    r"|(?<![\\$])\$(?![\s$])(?:\\.|[^\\$\n])+(?<!\s)\$(?!\d)",  # not prices: "$5 and $6"
    re.DOTALL,
)
