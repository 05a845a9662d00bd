"""The parts of the page as HTML: messages, the running answer, the history list, the empty page.

In: values of the core and a language. Out: HTML; all text by users and models is escaped or rendered by `markdown`. A
button's action is in its `data-do`, which `static/actions.js` reads.
This file does not know Gradio, the store or the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from html import escape
from itertools import groupby
from pathlib import Path

from impchat import presentation
from impchat.images import boxes
from impchat.messages import Conversation, Image, Message, Progress
from impchat.texts import say
from impchat_web import markdown

_PICTURE_WIDTH, _PICTURE_HEIGHT = 256, 224  # maximum size of a picture on the page, in CSS pixels

MARK = (Path(__file__).parent / "static/page.svg").read_text(encoding="utf-8").strip()


def thread(messages: Sequence[Message], image_of: Callable[[str], Image], language: str, known: int = 0) -> str:
    """The messages of a conversation, oldest first, without the running one and the first `known`."""
    parts = []
    for message in messages[known:]:
        if message.state == "streaming":
            continue
        if message.role == "user":
            parts.append(_question(message, image_of, language))
        else:
            found = boxes.boxes(message.text)
            picture = presentation.boxed_picture(messages, message.uuid) if found else None
            parts.append(_answer(message, _marked(image_of(picture), found, language) if picture else "", language))
    return "".join(parts)


def waiting(message: str, progress: Progress, language: str) -> str:
    """An answer without text so far, and the progress of reading the prompt."""
    words = escape(presentation.progress(progress, language))
    return _assistant(message, f'<p class="waiting">{_dots()}<span>{words}</span></p>', growing=True)


def writing(message: str, blocks: Sequence[str]) -> str:
    """A running answer; `blocks` are those of its Markdown."""
    return _assistant(message, f'<div class="words growing" dir="auto">{"".join(blocks)}</div>', growing=True)


def blocks(text: str, language: str) -> list[str]:
    """The text of an answer, one element for each paragraph, list, table and so on."""
    return markdown.blocks(text, say("chat.copy", language))


def _dots() -> str:
    return '<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>'


def _question(message: Message, image_of: Callable[[str], Image], language: str) -> str:
    pictures = "".join(
        _picture(image_of(sha), say("chat.picture", language, number=number), say("chat.enlarge", language))
        for number, sha in enumerate(message.images, 1)
    )
    pictures = f'<div class="pictures">{pictures}</div>' if pictures else ""
    text = f'<div class="bubble" dir="auto">{escape(message.text)}</div>' if message.text else ""
    label = escape(say("chat.you", language))
    return (
        f'<article class="turn question" aria-label="{label}" data-message="{escape(message.uuid)}">'
        f"{pictures}{text}</article>"
    )


def _picture(image: Image, name: str, enlarge: str) -> str:
    return (
        f'<button type="button" class="picture" data-do="enlarge" data-image="{image.sha256}" '
        f'title="{escape(enlarge)}">{_thumbnail(image, name)}</button>'
    )


def _thumbnail(image: Image, name: str) -> str:
    scale = min(1.0, _PICTURE_WIDTH / image.width, _PICTURE_HEIGHT / image.height)
    # Width and height reserve the space, so that the layout does not shift when the picture loads.
    size = f'width="{max(1, round(image.width * scale))}" height="{max(1, round(image.height * scale))}"'
    address = f"/thumbnail/{image.sha256}"
    return f'<img src="{address}" srcset="{address}?sharp=1 2x" alt="{escape(name)}" {size}>'


def _marked(image: Image, found: Sequence[boxes.Box], language: str) -> str:
    """The picture with the boxes of an answer drawn on it."""
    frames = ""
    for number, box in enumerate(found):
        at = f'x="{box.left}" y="{box.top}" width="{box.right - box.left:g}" height="{box.bottom - box.top:g}"'
        colour = boxes.COLOURS[number % len(boxes.COLOURS)]
        # white rim: visible everywhere
        frames += f'<g data-box="{number}"><rect class="ground" {at}/><rect {at} stroke="{colour}"/></g>'
    enlarge = escape(say("chat.enlarge", language))
    return (
        f'<figure class="marked" data-image="{image.sha256}">{_thumbnail(image, say("chat.boxes", language))}'
        f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{frames}</svg>'
        f'<button type="button" class="over" data-do="enlarge" data-image="{image.sha256}" title="{enlarge}" '
        f'aria-label="{enlarge}"></button></figure>'
    )


def _answer(message: Message, marked: str, language: str) -> str:
    body = ""
    if message.text:
        body = f'<div class="words" dir="auto">{"".join(blocks(message.text, language))}</div>'
    body += marked + "".join(
        f'<p class="note {kind}">{escape(text)}</p>' for kind, text in presentation.notes(message, language)
    )
    return _assistant(message.uuid, body + _receipt(message, language))


def _assistant(uuid: str, body: str, growing: bool = False) -> str:
    live = ' id="live"' if growing else ""
    return (
        f'<article class="turn answer" aria-label="ImpChat" data-message="{escape(uuid)}"{live}>'
        f'<span class="face" aria-hidden="true">{MARK}</span><div class="body">{body}</div></article>'
    )


def _receipt(message: Message, language: str) -> str:
    copy = (
        f'<button type="button" class="quiet" data-do="copy-answer" data-source="{escape(message.text)}">'
        f"{escape(say('chat.copy', language))}</button>"
        if message.text
        else ""
    )
    stats = message.stats
    figures = "".join(f"<span>{escape(part)}</span>" for part in presentation.receipt(stats, language)) if stats else ""
    return f'<footer class="receipt">{copy}<span class="figures">{figures}</span></footer>'


def history(
    conversations: Sequence[Conversation], selected: str, language: str, today: date, more: bool = False
) -> str:
    """The history list in groups by age. `today`: the date in the reader's time zone. `more`: there are older ones.

    The list is one tab stop, on the shown conversation or the first one; static/chats.js moves the focus within it."""
    if not conversations:
        return f'<p class="nothing">{escape(say("chat.history_empty", language))}</p>'
    parts = []
    stop = selected if any(c.uuid == selected for c in conversations) else conversations[0].uuid
    for group, members in groupby(conversations, key=lambda c: presentation.group_of(c, today)):
        entries = "".join(_entry(c, c.uuid == selected, c.uuid == stop, language) for c in members)
        name = escape(say(f"chat.history_{group}", language))
        parts.append(f'<section data-group="{group}"><h2>{name}</h2><ul>{entries}</ul></section>')
    if more:
        older = escape(say("chat.history_more", language))
        parts.append(f'<button type="button" class="quiet older" data-do="older">{older}</button>')
    return "".join(parts)


def _entry(conversation: Conversation, selected: bool, stop: bool, language: str) -> str:
    uuid = escape(conversation.uuid)
    title = presentation.title_of(conversation, language)
    state = ' aria-current="page"' if selected else ""
    state += f' tabindex="{0 if stop else -1}"'
    tools = "".join(
        f'<button type="button" class="tool {do}" data-do="{do}" tabindex="-1" '
        f'title="{escape(say(f"chat.{do}", language))}" '
        f'aria-label="{escape(say(f"chat.{do}", language))}: {escape(title)}"></button>'
        for do in ("rename", "delete")
    )
    return (
        f'<li data-conversation="{uuid}"><a href="/?c={uuid}" data-do="open"{state} dir="auto" '
        f'title="{escape(title)}">{escape(title)}</a>{tools}</li>'
    )


def welcome(samples: Sequence[str], language: str) -> str:
    """The page before the first question: an introduction, sample pictures and example questions."""
    cards = "".join(
        f'<button type="button" class="sample" data-do="sample" data-sample="{escape(name)}">'
        f'<img src="/sample/{escape(name)}" alt="{escape(say("chat.sample", language, number=number))}"></button>'
        for number, name in enumerate(samples, 1)
    )
    if cards:
        heading = escape(say("chat.samples", language))
        cards = f'<div class="pick"><h2>{heading}</h2><div class="samples">{cards}</div></div>'
    asks = "".join(
        f'<button type="button" class="ask" data-do="ask">{escape(ask)}</button>' for ask in presentation.asks(language)
    )
    return (
        f'<section class="welcome"><span class="face" aria-hidden="true">{MARK}</span>'
        f"<h1>{escape(say('chat.welcome', language))}</h1><p>{escape(say('web.welcome_lead', language))}</p>"
        f'{cards}<h2>{escape(say("chat.asks", language))}</h2><div class="asks">{asks}</div></section>'
    )


def place(server: str, language: str) -> str:
    """Where pictures and questions are sent: nowhere, or to the server of this name."""
    return escape(say("remote.label", language, server=server) if server else say("web.local", language))
