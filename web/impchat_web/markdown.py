"""Render an answer's Markdown as HTML that is safe to show.

In: the text that a model wrote, complete or still growing. Out: HTML in which the text cannot become a tag, a script,
an external picture, or a link other than http, https and mailto.
This file does not know messages or the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from impchat.formulas import FORMULA
from impchat.images import boxes

_SCHEMES = ("http://", "https://", "mailto:")


def blocks(text: str, copy_label: str) -> list[str]:
    """`text` as HTML, one element for each paragraph, list, table and so on. Every code block has a button named
    `copy_label`; every box of the picture is a button with its number, from 0, in `boxes.boxes(text)`. While `text`
    grows, usually only the last element changes."""
    parser, env = _parser(), {"copy_label": copy_label, "boxes": boxes.boxes(text)}
    found: list[list[Token]] = [[]]
    for token in parser.parse(text, env):
        found[-1].append(token)
        if token.level == 0 and token.nesting != 1:
            found.append([])
    return [str(parser.renderer.render(tokens, parser.options, env)).strip() for tokens in found[:-1]]


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable(["image"])  # a picture in an answer would be loaded from any address in the text
    markdown.validateLink = lambda url: url.lower().startswith(_SCHEMES)  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _link_open)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("code_block", _fence)
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    markdown.block.ruler.before("fence", "formula", _formula_block, {"alt": ["paragraph"]})
    markdown.inline.ruler.before("escape", "formula", _formula)
    markdown.add_render_rule("formula", _literal)
    markdown.inline.ruler.before("link", "box", _box)
    markdown.add_render_rule("box", _box_chip)
    return markdown


def _formula_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula on lines of its own, which would otherwise be read as a list or a heading."""
    found = FORMULA.match(state.src, state.bMarks[start] + state.tShift[start])
    if state.level or not found or not found[0].startswith(("\\[", "$$")):
        return False
    line = start
    while line < end and state.eMarks[line] < found.end():
        line += 1
    if line == end or state.src[found.end() : state.eMarks[line]].strip():
        return False
    if not silent:
        state.line = line + 1
        state.push("paragraph_open", "p", 1)
        state.push("formula", "", 0).content = found[0]
        state.push("paragraph_close", "p", -1)
    return True


def _formula(state: StateInline, silent: bool) -> bool:
    """A formula within a line; only its delimiter while the rest is still missing."""
    found = FORMULA.match(state.src, state.pos)
    mark = state.src[state.pos : state.pos + 2]
    if not found and mark not in ("\\(", "\\)", "\\[", "\\]"):
        return False
    literal = found[0] if found else mark
    if not silent:
        state.push("formula", "", 0).content = literal
    state.pos += len(literal)
    return True


def _literal(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return escape(tokens[index].content).replace("\n", "<br>")


def _box(state: StateInline, silent: bool) -> bool:
    """A box of the picture, `[left, top, right, bottom]`."""
    end = state.src.find("]", state.pos) + 1
    if state.src[state.pos] != "[" or not end or not boxes.boxes(state.src[state.pos : end]):
        return False
    if not silent:
        state.push("box", "", 0).content = state.src[state.pos : end]
    state.pos = end
    return True


def _box_chip(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """A box as a button that highlights its frame, in the frame's colour."""
    box, found = boxes.boxes(tokens[index].content)[0], env["boxes"]
    number = found.index(box)
    return (
        f'<button type="button" class="box box-{number % len(boxes.COLOURS)}" data-do="box" data-box="{number}">'
        f"{escape(tokens[index].content)}</button>"
    )


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
