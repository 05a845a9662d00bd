"""Plain spelling: how the demo model's questions are normalised from what keyboards, phones and other programs
produce."""

from __future__ import annotations

import time

import pytest

from impchat.engines.local import spelling
from impchat.messages import Prompt, Turn


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("Where is the circle?", "Where is the circle?"),
        ("Where’s the circle?", "Where's the circle?"),
        ("Where‘s the circle？", "Where's the circle?"),
        ("Where´s the circle?", "Where's the circle?"),
        ("WHERE’S THE CIRCLE?", "Where's the circle?"),
        ("Where Is The Circle?", "Where is the circle?"),
        ("What COLOR is the CIRCLE?", "What color is the circle?"),
        ("What color is the “circle”?", "What color is the circle?"),
        ("What color is the 'circle'?", "What color is the circle?"),
        ("What colors have the circles'", "What colors have the circles"),
        ("Who is Napoleon?", "Who is Napoleon?"),
        ("IS THERE A RED CIRCLE? GIVE A BOX.", "Is there a red circle? Give a box."),
        ("  What\u00a0is  in\nthe picture…\n", "What is in the picture"),
        ("What is this ?!?! ?", "What is this?"),
        ("Hello! !  What is this", "Hello! What is this"),
        ("red , blue", "red, blue"),
        ("Ｗｈａｔ ｉｓ this？！", "What is this?"),
        ("What\u200b is\ufeff this\u00ad?", "What is this?"),
        ("a – b", "a - b"),
        ("ARE YOU IMP-3B?", "Are you Imp-3B?"),
        ("how do i get imp-3b", "how do I get Imp-3B"),
        ("OK", "OK"),
        ("ok", "OK"),
        ("HI", "Hi"),
        ("hi", "hi"),
        ("圆形是什么颜色？", "圆形是什么颜色？"),
        ("圆形是什么颜色?", "圆形是什么颜色?"),
        (" “圆形” 是 什么颜色 ？?\n", "圆形是什么颜色？"),
        ("描述图片.", "描述图片。"),
        ("你好，有几个图形！?", "你好，有几个图形?"),
        ("「红色」的是什么?", "红色的是什么?"),
        ("你是 IMP-3B 吗?", "你是 Imp-3B 吗?"),
        ("…", "…"),
        ("“”", "“”"),
        ("", ""),
    ],
)
def test_a_question_in_plain_spelling(typed: str, plain: str) -> None:
    assert spelling.plain(typed) == plain
    assert spelling.plain(plain) == plain


def test_answers_are_not_respelled() -> None:
    prompt = Prompt(
        "Be “kind”.", (Turn("user", "WHAT?"), Turn("assistant", "A “CIRCLE”…"), Turn("user", "It’s RED")), "k"
    )
    spelt = spelling.plainly_spelt(prompt)
    assert [turn.text for turn in spelt.turns] == ["What?", "A “CIRCLE”…", "It's red"]
    assert (spelt.system, spelt.key) == (prompt.system, prompt.key)


def test_a_very_long_text_is_fast() -> None:
    for piece in ("WHAT IS THIS? ", "?! ", "a' ", "图 ? ", "...", "’“"):
        began = time.process_time()
        spelling.plain(piece * 20_000)
        assert time.process_time() - began < 1
