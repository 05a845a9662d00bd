"""The title that all front ends show for a conversation, and the picture that boxes in an answer refer to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from impchat import presentation
from impchat.messages import Conversation, Message

NEW = Conversation("u", "local", "", created_utc="2026-11-28T12:00:00.000", updated_utc="2026-11-28T12:00:00.000")


def test_a_chat_that_began_with_a_picture_alone_is_not_titled_new_chat() -> None:
    assert [presentation.title_of(NEW, language) for language in ("en", "zh")] == ["New chat", "新对话"]
    asked = replace(NEW, leaf="m")
    assert [presentation.title_of(asked, language) for language in ("en", "zh")] == [
        "Picture, 28 Nov",
        "图片，11月28日",
    ]
    assert presentation.title_of(replace(asked, title="A red circle"), "en") == "A red circle"


def branch(*pictures: tuple[str, ...]) -> list[Message]:
    """Questions with these pictures, each with an answer: "q0", "a0", "q1" and so on."""
    found: list[Message] = []
    for number, images in enumerate(pictures):
        parent = found[-1].uuid if found else None
        found += [
            Message(f"q{number}", "u", parent, "user", "Where?", images, "done", NEW.created_utc),
            Message(f"a{number}", "u", f"q{number}", "assistant", "[0, 0, 1, 1]", (), "done", NEW.created_utc),
        ]
    return found


@pytest.mark.parametrize(
    ("pictures", "answer", "found"),
    [
        ([("red",)], "a0", "red"),
        ([("red",), (), ()], "a2", "red"),
        ([("red",), ("blue",), ()], "a2", "blue"),
        ([("red", "green")], "a0", "green"),
        ([("red",), ("blue",)], "a0", "red"),
        ([()], "a0", None),
        ([(), ("red",)], "a0", None),
        ([], "a0", None),
    ],
    ids=["in its question", "earlier", "the latest", "the last of several", "not a later one", "none",
         "only a later one", "no message"],
)  # fmt: skip
def test_boxes_refer_to_the_last_picture_before_their_answer(
    pictures: list[tuple[str, ...]], answer: str, found: str | None
) -> None:
    assert presentation.boxed_picture(branch(*pictures), answer) == found
