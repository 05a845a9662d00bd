"""OpenConversation without a screen: text and pictures stay in their chat, whichever chat is opened meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from impchat import settings
from impchat.app import App
from impchat_mobile.conversation import OpenConversation
from tests.core.slow import SlowEngine
from tests.mobile.conftest import drawing

ME = settings.OWNER
Converse = Callable[[Callable[[OpenConversation, App], Awaitable[None]]], None]


@pytest.fixture
def converse(tmp_path: Path) -> Converse:
    """Runs a scene with an OpenConversation without listeners."""

    def run(scene: Callable[[OpenConversation, App], Awaitable[None]]) -> None:
        async def whole() -> None:
            app = App.open(tmp_path, engine=SlowEngine(words_per_s=100.0))
            talk = OpenConversation(app, lambda: None)
            try:
                await scene(talk, app)
                await talk.settled()
            finally:
                talk.close()
                await asyncio.to_thread(app.close)

        asyncio.run(whole())

    return run


def test_the_draft_of_a_chat_opened_while_a_question_is_sent_is_kept(converse: Converse) -> None:
    async def scene(talk: OpenConversation, app: App) -> None:
        await talk.open(None)
        await talk.attach(drawing("red"))
        talk.text = "Same words"
        await talk.keep()
        other = talk.conversation
        await talk.open(None)
        talk.text = "Same words"
        await asyncio.gather(talk.send("Same words"), talk.open(other))
        assert (talk.conversation, talk.text, len(talk.draft.pictures)) == (other, "Same words", 1)
        assert talk.growing is None
        sent, kept = sorted(app.history.conversations(ME), key=lambda chat: chat.uuid == other)
        assert (kept.draft, len(kept.draft_images)) == ("Same words", 1)
        assert (sent.draft, sent.title) == ("", "Same words")

    converse(scene)


def test_text_typed_while_a_question_is_sent_is_the_next_draft(converse: Converse) -> None:
    async def scene(talk: OpenConversation, app: App) -> None:
        await talk.open(None)
        talk.text = "Hello"
        sending = asyncio.ensure_future(talk.send("Hello"))
        await asyncio.sleep(0)
        talk.text = "And an"
        await sending
        assert talk.text == "And an"
        await talk.open(None)
        [chat] = app.history.conversations(ME)
        assert chat.draft == "And an"

    converse(scene)


def test_a_picture_is_added_to_the_chat_in_which_it_was_chosen(converse: Converse) -> None:
    async def scene(talk: OpenConversation, app: App) -> None:
        await talk.open(None)
        chosen_in = talk.chat
        await asyncio.gather(talk.open(None), talk.attach(drawing("red"), chosen_in))
        assert talk.conversation is None
        assert talk.draft.pictures == ()
        [chat] = app.history.conversations(ME)
        assert (chat.uuid, len(chat.draft_images)) == (chosen_in.conversation, 1)

    converse(scene)


def test_a_chat_that_was_removed_for_good_can_be_left(converse: Converse) -> None:
    async def scene(talk: OpenConversation, app: App) -> None:
        await talk.open(None)
        talk.text = "Half a quest"
        await talk.keep()
        assert talk.conversation
        app.history.purge_conversation(talk.conversation, ME)
        await talk.open(None)
        assert (talk.conversation, talk.text) == (None, "")

    converse(scene)
