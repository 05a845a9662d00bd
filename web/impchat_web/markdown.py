"""An answer's Markdown as HTML that is safe to show.

In: the text a model wrote, complete or still growing. Out: HTML in which nothing of that text can become a tag, a
script, a picture from elsewhere or a link other than http, https and mailto.
This file does not know messages or the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_SCHEMES = ("http://", "https://", "mailto:")


def to_html(text: str, copy_label: str) -> str:
    """`text` rendered; each code block carries a button named `copy_label`."""
    return str(_parser().render(text, {"copy_label": copy_label}))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable(["image"])  # a picture in an answer would be fetched from wherever the text says
    markdown.validateLink = lambda url: url.lower().startswith(_SCHEMES)  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _link_open)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("code_block", _fence)
    return markdown


def _link_open(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer")
    return self.renderToken(tokens, index, options, env)


def _fence(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    language = token.info.split()[0] if token.info.strip() else ""
    return (
        f'<div class="code"><div class="code-bar"><span>{escape(language)}</span>'
        f'<button type="button" class="quiet" data-do="copy-code">{escape(env["copy_label"])}</button></div>'
        f"<pre><code>{_coloured(token.content, language)}</code></pre></div>"
    )


def _coloured(code: str, language: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language) if language else None
    except ClassNotFound:
        lexer = None
    if lexer is None:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
