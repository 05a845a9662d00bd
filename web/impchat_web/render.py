"""The parts of the page as HTML: messages, the answer that is being written, the history list, the empty page.

In: values of the core and a language. Out: HTML; every text of a person or a model is escaped or comes through
`markdown`. A button carries what it does in `data-do`; `page.js` reads it.
This file does not know Gradio, the store or the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from itertools import groupby
from pathlib import Path

from impchat import grounding, remarks
from impchat.messages import Conversation, Image, Message, Reading
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
    shown: Image | None = None  # the latest picture, which the boxes of an answer are about
    for message in messages:
        if message.role == "user":
            parts.append(_question(message, images, language))
            shown = next((images[sha] for sha in reversed(message.images) if sha in images), shown)
        elif message.state != "streaming":
            parts.append(_answer(message, shown, language))
    return "".join(parts)


def writing(answer: Writing, language: str) -> str:
    """The answer that is being written."""
    if answer.text:
        words = markdown.to_html(answer.text, say("chat.copy", language))
        body = f'<div class="words growing" dir="auto">{words}</div>'
    else:
        body = f'<p class="waiting">{_dots()}<span>{escape(remarks.progress(answer.reading, language))}</span></p>'
    return _assistant(answer.message, body)


def _dots() -> str:
    return '<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>'


def _question(message: Message, images: Mapping[str, Image], language: str) -> str:
    pictures = "".join(
        _picture(images[sha], say("chat.picture", language, number=number), say("chat.enlarge", language))
        for number, sha in enumerate(message.images, 1)
        if sha in images
    )
    pictures = f'<div class="pictures">{pictures}</div>' if pictures else ""
    text = f'<div class="bubble" dir="auto">{escape(message.text)}</div>' if message.text else ""
    label = escape(say("chat.you", language))
    return f'<article class="turn question" aria-label="{label}">{pictures}{text}</article>'


def _picture(image: Image, name: str, enlarge: str) -> str:
    return (
        f'<button type="button" class="picture" data-do="enlarge" data-image="{image.sha256}" '
        f'title="{escape(enlarge)}">{_thumbnail(image, name)}</button>'
    )


def _thumbnail(image: Image, name: str) -> str:
    scale = min(1.0, _PICTURE_WIDTH / image.width, _PICTURE_HEIGHT / image.height)
    # Width and height keep the place free, so that nothing jumps when the picture comes.
    size = f'width="{round(image.width * scale)}" height="{round(image.height * scale)}"'
    return f'<img src="/thumbnail/{image.sha256}" alt="{escape(name)}" {size}>'


def _marked(image: Image, boxes: Sequence[grounding.Box], language: str) -> str:
    """The picture with the boxes of an answer drawn on it."""
    frames = ""
    for number, box in enumerate(boxes):
        at = f'x="{box.left}" y="{box.top}" width="{box.right - box.left:g}" height="{box.bottom - box.top:g}"'
        colour = grounding.COLOURS[number % len(grounding.COLOURS)]
        frames += f'<rect class="ground" {at}/><rect {at} stroke="{colour}"/>'  # white below: seen on any ground
    return (
        f'<figure class="marked">{_thumbnail(image, say("chat.boxes", language))}'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{frames}</svg></figure>'
    )


def _answer(message: Message, shown: Image | None, language: str) -> str:
    body = ""
    if message.text:
        body = f'<div class="words" dir="auto">{markdown.to_html(message.text, say("chat.copy", language))}</div>'
    if shown and (boxes := grounding.boxes(message.text)):
        body += _marked(shown, boxes, language)
    body += "".join(f'<p class="note {kind}">{escape(text)}</p>' for kind, text in remarks.notes(message, language))
    return _assistant(message.uuid, body + _receipt(message, language))


def _assistant(uuid: str, body: str) -> str:
    return (
        f'<article class="turn answer" aria-label="ImpChat" data-message="{escape(uuid)}">'
        f'<span class="face" aria-hidden="true">{MARK}</span><div class="body">{body}</div></article>'
    )


def _receipt(message: Message, language: str) -> str:
    copy = (
        f'<button type="button" class="quiet" data-do="copy-answer">{escape(say("chat.copy", language))}</button>'
        if message.text
        else ""
    )
    stats = message.stats
    figures = "".join(f"<span>{escape(part)}</span>" for part in remarks.receipt(stats, language)) if stats else ""
    return f'<footer class="receipt">{copy}<span class="figures">{figures}</span></footer>'


def history(conversations: Sequence[Conversation], selected: str, language: str, today: date) -> str:
    """The history list in groups by age; `today` is the date on the reader's clock."""
    if not conversations:
        return f'<p class="nothing">{escape(say("chat.history_empty", language))}</p>'
    parts = []
    for group, members in groupby(conversations, key=lambda c: remarks.group_of(c, today)):
        entries = "".join(_entry(c, c.uuid == selected, language) for c in members)
        parts.append(f"<h2>{escape(say(f'chat.history_{group}', language))}</h2><ul>{entries}</ul>")
    return "".join(parts)


def _entry(conversation: Conversation, selected: bool, language: str) -> str:
    uuid = escape(conversation.uuid)
    title = remarks.title_of(conversation, language)
    current = ' aria-current="page"' if selected else ""
    tools = "".join(
        f'<button type="button" class="tool {do}" data-do="{do}" title="{escape(say(f"chat.{do}", language))}" '
        f'aria-label="{escape(say(f"chat.{do}", language))}: {escape(title)}"></button>'
        for do in ("rename", "delete")
    )
    return (
        f'<li data-conversation="{uuid}"><a href="/?c={uuid}" data-do="open"{current} dir="auto" '
        f'title="{escape(title)}">{escape(title)}</a>{tools}</li>'
    )


def welcome(samples: Sequence[str], language: str) -> str:
    """The page before the first question: what this is, pictures to try, questions to ask."""
    cards = "".join(
        f'<button type="button" class="sample" data-do="sample" data-sample="{escape(name)}">'
        f'<img src="/sample/{escape(name)}" alt="{escape(say("chat.sample", language, number=number))}"></button>'
        for number, name in enumerate(samples, 1)
    )
    if cards:
        heading = escape(say("chat.samples", language))
        cards = f'<div class="pick"><h2>{heading}</h2><div class="samples">{cards}</div></div>'
    asks = "".join(
        f'<button type="button" class="ask" data-do="ask">{escape(say(f"chat.ask_{number}", language))}</button>'
        for number in range(1, 5)
    )
    return (
        f'<section class="welcome"><span class="face" aria-hidden="true">{MARK}</span>'
        f"<h1>{escape(say('chat.welcome', language))}</h1><p>{escape(say('web.welcome_lead', language))}</p>"
        f'{cards}<h2>{escape(say("chat.asks", language))}</h2><div class="asks">{asks}</div></section>'
    )


def place(server: str, language: str) -> str:
    """Where pictures and questions go: nowhere, or to the server of this name."""
    return escape(say("remote.label", language, server=server) if server else say("web.local", language))
