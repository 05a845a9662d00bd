"""What every front end shows around a conversation: an answer's statistics, notes and picture, titles, groups of the
list.

In: values of the history, and a language. Out: sentences of the catalogue, ready to show; hashes of pictures.
This file does not know how or where they are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from typing import Literal

from impchat.errors import ImpChatError
from impchat.messages import Conversation, Failed, Message, Progress, Stats
from impchat.texts import say

Kind = Literal["error", "hint"]

_ASKS = ("ask_1", "ask_2", "ask_3")
_SAMPLE_ASKS = {
    "shapes": ("ask_circle", "ask_circle_box"),
    "night": ("ask_heart", "ask_heart_box"),
    "triangles": ("ask_triangles", "ask_circle_box"),
    "landscape": ("ask_weather",),
}


def sentence(error: Failed, language: str) -> str:
    """The sentence for an error that arrived as an event."""
    return ImpChatError(error.code, **error.values).sentence(language)


def notes(message: Message, language: str) -> Iterator[tuple[Kind, str]]:
    """What to show with an answer besides its text, such as an error or a limit that was reached."""
    if message.error is not None:
        yield "error", sentence(message.error, language)
    elif message.state == "interrupted":
        yield "error", say("chat.interrupted", language)
    elif message.state == "stopped":
        yield "hint", say("chat.stopped", language)
    elif message.finish_reason == "length":
        yield "hint", say("chat.cut", language)
    if message.dropped_turns:
        yield "hint", say("chat.dropped", language, turns=message.dropped_turns)


def receipt(stats: Stats, language: str) -> Iterator[str]:
    """The statistics of an answer as short phrases."""
    if stats.generated_tokens:
        yield say("chat.first_token", language, seconds=f"{stats.first_token_s:.2f}")
    if stats.generated_tokens_per_s:
        yield say("chat.speed", language, speed=f"{stats.generated_tokens_per_s:.0f}")
    if stats.cached_tokens:
        yield say("chat.reused", language, reused=stats.cached_tokens, total=stats.prompt_tokens)


def receipt_details(stats: Stats, language: str) -> Iterator[str]:
    """All statistics of an answer, one sentence each."""
    if stats.vision_s:
        yield say("receipt.vision", language, seconds=f"{stats.vision_s:.2f}")
    if stats.cached_tokens:
        yield say("chat.reused", language, reused=stats.cached_tokens, total=stats.prompt_tokens)
    if stats.new_tokens:
        speed = f"{stats.prompt_tokens_per_s:.0f}"
        yield say("receipt.prompt", language, tokens=stats.new_tokens, seconds=f"{stats.prefill_s:.2f}", speed=speed)
    if stats.generated_tokens:
        yield say("chat.first_token", language, seconds=f"{stats.first_token_s:.2f}")
        seconds, speed = f"{stats.decode_s:.2f}", f"{stats.generated_tokens_per_s:.0f}"
        yield say("receipt.answer", language, tokens=stats.generated_tokens, seconds=seconds, speed=speed)


def progress(progress: Progress, language: str) -> str:
    """What an answer without text so far is doing: its place in the queue, or how far its prompt has been
    read."""
    if progress.queued:
        return say("chat.queued", language, place=progress.queued.place)
    if progress.reading is None or progress.reading.total == 0:
        return say("chat.thinking", language)
    return say("chat.reading_percent", language, percent=progress.percent)


def boxed_picture(branch: Sequence[Message], answer: str) -> str | None:
    """The sha256 of the picture that boxes in the answer with the uuid `answer` refer to: the last one before it in
    `branch`. None if there is none."""
    before = takewhile(lambda message: message.uuid != answer, branch)
    return next((message.images[-1] for message in reversed(list(before)) if message.images), None)


def context_used(branch: Sequence[Message]) -> int:
    """The context tokens that a branch takes, from its latest answer with statistics; 0 if no answer has them."""
    for message in reversed(branch):
        if message.stats and message.stats.prompt_tokens:
            return message.stats.prompt_tokens + message.stats.generated_tokens
    return 0


def asks(language: str) -> list[str]:
    """Questions to try with any picture."""
    return [say(f"chat.{key}", language) for key in _ASKS]


def sample_asks(sample: str, language: str) -> list[str]:
    """Questions to try with this sample picture (see `paths.sample_of`); none for other pictures."""
    return [say(f"chat.{key}", language) for key in _SAMPLE_ASKS.get(sample, ())]


def title_of(conversation: Conversation, language: str) -> str:
    """The conversation's title, or a text for an untitled one (new, or begun with a picture without words)."""
    if conversation.title or not conversation.leaf:
        return conversation.title or say("chat.untitled", language)
    day = _local(conversation.created_utc).date()
    month = say("chat.months", language).split()[day.month - 1]
    return say("chat.untitled_picture", language, date=say("chat.day_of_month", language, day=day.day, month=month))


def moment(utc: str) -> str:
    """Date and time, to the minute, in the local time zone."""
    return f"{_local(utc):%Y-%m-%d %H:%M}"


def group_of(conversation: Conversation, today: date) -> str:
    """The list's group for this conversation: the end of a key "chat.history_...". `today`: in local time."""
    if conversation.pinned:
        return "pinned"
    day = _local(conversation.updated_utc).date()
    if day >= today:
        return "today"
    if day == today - timedelta(days=1):
        return "yesterday"
    return "week" if day > today - timedelta(days=7) else "older"


def _local(utc: str) -> datetime:
    return datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone()
