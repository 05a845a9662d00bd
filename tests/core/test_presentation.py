"""The title that all front ends show for a conversation."""

from __future__ import annotations

from dataclasses import replace

from impchat import presentation
from impchat.messages import Conversation

NEW = Conversation("u", "local", "", created_utc="2026-11-28T12:00:00.000", updated_utc="2026-11-28T12:00:00.000")


def test_a_chat_that_began_with_a_picture_alone_is_not_titled_new_chat() -> None:
    assert [presentation.title_of(NEW, language) for language in ("en", "zh")] == ["New chat", "新对话"]
    asked = replace(NEW, leaf="m")
    assert [presentation.title_of(asked, language) for language in ("en", "zh")] == [
        "Picture, 28 Nov",
        "图片，11月28日",
    ]
    assert presentation.title_of(replace(asked, title="A red circle"), "en") == "A red circle"
