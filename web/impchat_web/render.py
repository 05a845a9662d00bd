"""The parts of the page as HTML: messages, the answer that is being written, the history list, the empty page.

In: values of the core and a language. Out: HTML; every text of a person or a model is escaped or comes through
`markdown`. A button carries what it does in `data-do`; `page.js` reads it.
This file does not know Gradio, the store or the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from html import escape
from itertools import groupby
from pathlib import Path

from impchat.errors import ImpChatError
from impchat.messages import Conversation, Failed, Image, Message, Reading, Stats
from impchat.texts import say
from impchat_web import markdown

_PICTURE_WIDTH, _PICTURE_HEIGHT = 256, 224  # most that a picture takes of the page, in CSS pixels

MARK = (Path(__file__).parent / "page.svg").read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True)
class Writing:
    """An answer on its way: what has been written, or how far the reading before it is."""

    message: str
    text: str = ""
    reading: Reading | None = None


def thread(messages: Iterable[Message], images: Mapping[str, Image], language: str) -> str:
    """The messages of a conversation, oldest first, without the one that is being written."""
    parts = []
    for message in messages:
        if message.role == "user":
            parts.append(_question(message, images, language))
        elif message.state != "streaming":
            parts.append(_answer(message, language))
    return "".join(parts)


def writing(answer: Writing, language: str) -> str:
    """The answer that is being written."""
    if answer.text:
        body = f'<div class="words growing" dir="auto">{markdown.to_html(answer.text, say("web.copy", language))}</div>'
    else:
        body = f'<p class="waiting">{_dots()}<span>{escape(_progress(answer.reading, language))}</span></p>'
    return _assistant(answer.message, body)


def _progress(reading: Reading | None, language: str) -> str:
    if reading is None or reading.total == 0:
        return say("web.thinking", language)
    return say("web.reading_percent", language, percent=100 * reading.done // reading.total)


def _dots() -> str:
    return '<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>'


def _question(message: Message, images: Mapping[str, Image], language: str) -> str:
    pictures = "".join(
        _picture(images[sha], say("web.picture", language, number=number), say("web.enlarge", language))
        for number, sha in enumerate(message.images, 1)
        if sha in images
    )
    pictures = f'<div class="pictures">{pictures}</div>' if pictures else ""
    text = f'<div class="bubble" dir="auto">{escape(message.text)}</div>' if message.text else ""
    label = escape(say("web.you", language))
    return f'<article class="turn question" aria-label="{label}">{pictures}{text}</article>'


def _picture(image: Image, name: str, enlarge: str) -> str:
    scale = min(1.0, _PICTURE_WIDTH / image.width, _PICTURE_HEIGHT / image.height)
    # Width and height keep the place free, so that nothing jumps when the picture comes.
    width, height = round(image.width * scale), round(image.height * scale)
    return (
        f'<button type="button" class="picture" data-do="enlarge" data-image="{image.sha256}" '
        f'title="{escape(enlarge)}"><img src="/thumbnail/{image.sha256}" alt="{escape(name)}" '
        f'width="{width}" height="{height}"></button>'
    )


def _answer(message: Message, language: str) -> str:
    body = ""
    if message.text:
        body = f'<div class="words" dir="auto">{markdown.to_html(message.text, say("web.copy", language))}</div>'
    body += "".join(f'<p class="note {kind}">{escape(text)}</p>' for kind, text in _notes(message, language))
    return _assistant(message.uuid, body + _receipt(message, language))


def _assistant(uuid: str, body: str) -> str:
    return (
        f'<article class="turn answer" aria-label="ImpChat" data-message="{escape(uuid)}">'
        f'<span class="face" aria-hidden="true">{MARK}</span><div class="body">{body}</div></article>'
    )


def _notes(message: Message, language: str) -> Iterable[tuple[str, str]]:
    """What a person should know of an answer beside its text."""
    if message.error is not None:
        yield "error", sentence(message.error, language)
    elif message.state == "interrupted":
        yield "error", say("web.interrupted", language)
    elif message.state == "stopped":
        yield "hint", say("web.stopped", language)
    elif message.finish_reason == "length":
        yield "hint", say("web.cut", language)
    if message.dropped_turns:
        yield "hint", say("web.dropped", language, turns=message.dropped_turns)


def sentence(error: Failed, language: str) -> str:
    """The one sentence of an error that came as an event."""
    return ImpChatError(error.code, **error.values).sentence(language)


def _receipt(message: Message, language: str) -> str:
    copy = (
        f'<button type="button" class="quiet" data-do="copy-answer">{escape(say("web.copy", language))}</button>'
        if message.text
        else ""
    )
    stats = message.stats
    figures = "".join(f"<span>{escape(part)}</span>" for part in _figures(stats, language)) if stats else ""
    return f'<footer class="receipt">{copy}<span class="figures">{figures}</span></footer>'


def _figures(stats: Stats, language: str) -> Iterable[str]:
    if stats.generated_tokens:
        yield say("web.first_token", language, seconds=f"{stats.first_token_s:.2f}")
    if stats.generated_tokens_per_s:
        yield say("web.speed", language, speed=f"{stats.generated_tokens_per_s:.0f}")
    if stats.cached_tokens:
        yield say("web.reused", language, reused=stats.cached_tokens, total=stats.prompt_tokens)


def history(conversations: Sequence[Conversation], selected: str, language: str, today: date) -> str:
    """The history list in groups by age; `today` is the date on the reader's clock."""
    if not conversations:
        return f'<p class="nothing">{escape(say("web.history_empty", language))}</p>'
    parts = []
    for group, members in groupby(conversations, key=lambda c: "pinned" if c.pinned else _age(c.updated_utc, today)):
        entries = "".join(_entry(c, c.uuid == selected, language) for c in members)
        parts.append(f"<h2>{escape(say(f'web.history_{group}', language))}</h2><ul>{entries}</ul>")
    return "".join(parts)


def _age(utc: str, today: date) -> str:
    day = datetime.fromisoformat(utc).replace(tzinfo=UTC).astimezone().date()
    if day >= today:
        return "today"
    if day == today - timedelta(days=1):
        return "yesterday"
    return "week" if day > today - timedelta(days=7) else "older"


def _entry(conversation: Conversation, selected: bool, language: str) -> str:
    uuid = escape(conversation.uuid)
    title = title_of(conversation, language)
    current = ' aria-current="page"' if selected else ""
    tools = "".join(
        f'<button type="button" class="tool {do}" data-do="{do}" title="{escape(say(f"web.{do}", language))}" '
        f'aria-label="{escape(say(f"web.{do}", language))}: {escape(title)}"></button>'
        for do in ("rename", "delete")
    )
    return (
        f'<li data-conversation="{uuid}"><a href="/?c={uuid}" data-do="open"{current} dir="auto" '
        f'title="{escape(title)}">{escape(title)}</a>{tools}</li>'
    )


def title_of(conversation: Conversation, language: str) -> str:
    """The conversation's title, or a word for one that has none yet."""
    return conversation.title or say("web.untitled", language)


def welcome(samples: Sequence[str], language: str) -> str:
    """The page before the first question: what this is, pictures to try, questions to ask."""
    cards = "".join(
        f'<button type="button" class="sample" data-do="sample" data-sample="{escape(name)}">'
        f'<img src="/sample/{escape(name)}" alt="{escape(say("web.sample", language, number=number))}"></button>'
        for number, name in enumerate(samples, 1)
    )
    if cards:
        cards = (
            f'<div class="pick"><h2>{escape(say("web.samples", language))}</h2><div class="samples">{cards}</div></div>'
        )
    asks = "".join(
        f'<button type="button" class="ask" data-do="ask">{escape(say(f"web.ask_{number}", language))}</button>'
        for number in range(1, 5)
    )
    return (
        f'<section class="welcome"><span class="face" aria-hidden="true">{MARK}</span>'
        f"<h1>{escape(say('web.welcome', language))}</h1><p>{escape(say('web.welcome_lead', language))}</p>"
        f'{cards}<h2>{escape(say("web.asks", language))}</h2><div class="asks">{asks}</div></section>'
    )


def banner(language: str) -> str:
    """What a person must know of the demo model."""
    hide = escape(say("web.hide", language))
    return (
        f'<div class="banner" role="note"><b>{escape(say("web.demo", language))}</b>'
        f"<span>{escape(say('web.demo_says', language))}</span>"
        f'<button type="button" class="tool close" data-do="hide-banner" aria-label="{hide}" title="{hide}">'
        "</button></div>"
    )
