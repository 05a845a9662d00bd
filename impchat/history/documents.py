"""A conversation as a document for people: one HTML file with its pictures, plain text, or Markdown with its pictures
in a zip.

In: a history, a conversation and its owner. Out: text or bytes that show the branch in view. HTML has no script and
loads nothing. This file does not know how an answer's Markdown is rendered; a front end may pass a function that does.
"""

from __future__ import annotations

import base64
import html
import io
import zipfile
from collections.abc import Callable

from impchat import presentation
from impchat.history import archive
from impchat.history.store import History
from impchat.messages import Conversation, Message
from impchat.texts import say


def export_html(
    history: History,
    conversation: str,
    owner: str,
    language: str = "en",
    render: Callable[[str], str] | None = None,
) -> str:
    """The shown branch as one HTML file with all pictures inside. `render` turns the Markdown of an answer into HTML
    without scripts; None: answers are shown as they were written.

    Raises HistoryError "history.no_conversation" or "history.image_missing"."""
    title, branch = _title_and_branch(history, conversation, owner, language)
    body = "\n".join(_article(history, message, language, render) for message in branch)
    return _PAGE.format(language=html.escape(language), title=html.escape(title), body=body)


def export_text(history: History, conversation: str, owner: str, language: str = "en") -> str:
    """The shown branch as plain text, without pictures. Raises HistoryError "history.no_conversation"."""
    title, branch = _title_and_branch(history, conversation, owner, language)
    parts = [title]
    for message in branch:
        pictures = [history.image(sha256) for sha256 in message.images]
        lines = [f"[{say('history.picture', language, width=p.width, height=p.height)}]" for p in pictures]
        parts.append("\n".join([f"{_speaker(message, language)}:", *lines, message.text]).rstrip())
    return "\n\n".join(parts) + "\n"


def export_markdown_zip(history: History, conversation: str, owner: str, language: str = "en") -> bytes:
    """`archive.export_markdown` as `conversation.md` in a zip, with the pictures that it links.

    Raises HistoryError "history.no_conversation" or "history.image_missing"."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as files:
        files.writestr("conversation.md", archive.export_markdown(history, conversation, owner, language))
        for name, data in archive.image_files(history, conversation, owner).items():
            files.writestr(name, data)
    return out.getvalue()


def _title_and_branch(history: History, conversation: str, owner: str, language: str) -> tuple[str, list[Message]]:
    whole: Conversation = history.conversation(conversation, owner)
    return presentation.title_of(whole, language), history.branch(conversation, owner)


def _speaker(message: Message, language: str) -> str:
    return say(f"archive.{message.role}", language, model=message.model or "")


def _article(history: History, message: Message, language: str, render: Callable[[str], str] | None) -> str:
    lines = [f'<article class="{message.role}">', f"<h2>{html.escape(_speaker(message, language))}</h2>"]
    lines.append(f'<time datetime="{message.created_utc}">{presentation.moment(message.created_utc)}</time>')
    for sha256 in message.images:
        image = history.image(sha256)
        data = base64.b64encode(history.image_bytes(sha256)).decode()
        size = f'width="{image.width}" height="{image.height}"'
        alt = html.escape(say("history.picture", language, width=image.width, height=image.height))
        lines.append(f'<img alt="{alt}" {size} src="data:{image.mime};base64,{data}">')
    if message.text and render and message.role == "assistant":
        lines.append(f'<div dir="auto">{render(message.text)}</div>')
    elif message.text:
        lines.append(f'<p dir="auto">{html.escape(message.text)}</p>')
    if message.state != "done":
        lines.append(f'<p class="note">{html.escape(say(f"archive.{message.state}", language))}</p>')
    return "\n".join([*lines, "</article>"])


_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.6 system-ui, sans-serif; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }}
h2 {{ display: inline; margin-right: .6rem; font-size: 1rem; }}
article {{ padding: 1rem 0; border-top: 1px solid #8886; break-inside: avoid-page; }}
article p {{ margin: .4rem 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }}
time, .note {{ font-size: .85rem; opacity: .75; }}
img {{ display: block; max-width: 100%; max-height: 80vh; width: auto; height: auto; margin: .6rem 0; }}
pre {{ overflow-x: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
