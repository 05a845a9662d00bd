"""Which parts of an answer count as formulas."""

from __future__ import annotations

import pytest

from impchat.formulas import FORMULA


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        (r"the area is \(a^2\), not \(2a\)", [r"\(a^2\)", r"\(2a\)"]),
        ("\\[\n\\frac{a}{b}\n\\]", ["\\[\n\\frac{a}{b}\n\\]"]),
        ("$$\na * b * c\n$$ and $x_1$", ["$$\na * b * c\n$$", "$x_1$"]),
        (r"$\$5 + x$", [r"$\$5 + x$"]),
        ("it costs $5 and $6", []),
        ("US$5/HK$6 or 5 $ and 6 $", []),
        (r"costs \$5 to \$6", []),
        (r"\(still open", []),
        ("no $ here\nnor $ there", []),
    ],
)
def test_formulas_are_distinguished_from_prices(text: str, formulas: list[str]) -> None:
    assert FORMULA.findall(text) == formulas
