"""One message on the screen: a question with its pictures, or an answer with its notes and actions.

In: a message and the data shown with it. Out: a control; that of a running answer grows in place.
This file does not know where messages come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flet as ft

from impchat import presentation
from impchat.messages import Message, Progress
from impchat_mobile import markdown, theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.views.message_actions import MessageActions

_SINGLE, _OF_SEVERAL = (240, 240), (160, 112)  # maximum width and height in pixels of a picture in a question
_MONO: dict[str, Any] = {"font_family": "monospace", "font_family_fallback": ["Menlo", "Courier", "Roboto Mono"]}


def _text_style(size: float = 16, **options: Any) -> ft.TextStyle:
    style: dict[str, Any] = {"size": size, "height": 1.45, "color": ft.Colors.ON_SURFACE}
    return ft.TextStyle(**(style | options))


# Flet draws every style that is missing here in the colours of the light theme.
_MARKDOWN_STYLES: dict[str, Any] = {
    "p_text_style": _text_style(),
    **{
        f"h{level}_text_style": _text_style(size, weight=ft.FontWeight.W_600, height=1.3)
        for level, size in enumerate((22, 20, 18, 16, 16, 16), 1)
    },
    "code_text_style": _text_style(14, height=None, bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH, **_MONO),
    "a_text_style": ft.TextStyle(color=ft.Colors.PRIMARY),
    "list_bullet_text_style": _text_style(),
    "checkbox_text_style": ft.TextStyle(size=20, color=ft.Colors.PRIMARY),
    "blockquote_text_style": _text_style(color=ft.Colors.ON_SURFACE_VARIANT),
    "blockquote_padding": ft.Padding.only(left=14, right=8, top=4, bottom=4),
    "blockquote_decoration": ft.BoxDecoration(border=ft.Border(left=ft.BorderSide(3, ft.Colors.OUTLINE_VARIANT))),
    "table_head_text_style": _text_style(15, weight=ft.FontWeight.W_600),
    "table_body_text_style": _text_style(15),
    "table_cells_padding": ft.Padding.symmetric(horizontal=10, vertical=6),
    "horizontal_rule_decoration": ft.BoxDecoration(border=ft.Border(top=ft.BorderSide(1, ft.Colors.OUTLINE_VARIANT))),
    "block_spacing": 10,
}
_CODE_BACKGROUND = {True: "#2b2b2b", False: "#fefefe"}  # is dark -> background colour of the code theme


class MarkdownText:
    """Markdown that may grow: only the parts that have changed are drawn again."""

    def __init__(self, shell: Shell, link: Callable[[str], object], text: str = "") -> None:
        self._shell = shell
        self._link = link
        self._parts: list[markdown.Part] = []
        self.control = ft.Column(spacing=8, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH)
        self._fit(text)

    def grow(self, text: str) -> None:
        if self._fit(text):
            self._shell.draw(self.control)
        elif self.control.controls:
            self._shell.draw(self.control.controls[-1])

    def _fit(self, text: str) -> bool:
        """Update the controls to `text`. Returns whether parts were added or replaced."""
        now = markdown.parts(text)
        before = self._parts
        self._parts = now
        if len(now) == len(before) and now[:-1] == before[:-1] and now[-1].code == before[-1].code:
            if now[-1] != before[-1]:
                self._body(self.control.controls[-1]).value = _source(now[-1])
            return False
        same = 0
        while same < min(len(now), len(before)) and now[same] == before[same]:
            same += 1
        self.control.controls[same:] = [self._part(part) for part in now[same:]]
        return True

    def _part(self, part: markdown.Part) -> ft.Control:
        body = self._markdown(part)
        if not part.code:
            return body
        bar = ft.Row(
            [
                theme.muted(part.language, expand=True),
                theme.small_button(
                    ft.Icons.COPY_ROUNDED, self._shell.say("mobile.copy_code"), self._shell.on(lambda: self._copy(body))
                ),
            ]
        )
        return ft.Container(
            ft.Column([bar, body], spacing=0, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH),
            bgcolor=_CODE_BACKGROUND[self._shell.dark],
            border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
            border_radius=14,
            padding=ft.Padding.only(left=14, right=6, bottom=10),
            data=body,
        )

    def _body(self, control: ft.Control) -> ft.Markdown:
        body = control.data if isinstance(control, ft.Container) else control
        assert isinstance(body, ft.Markdown)
        return body

    async def _copy(self, body: ft.Markdown) -> None:
        index = next(i for i, c in enumerate(self.control.controls) if self._body(c) is body)
        await self._shell.copy(self._parts[index].text)

    def _markdown(self, part: markdown.Part) -> ft.Markdown:
        code_theme = ft.MarkdownCodeTheme.A11Y_DARK if self._shell.dark else ft.MarkdownCodeTheme.A11Y_LIGHT
        plain: dict[str, Any] = {
            "codeblock_padding": 0,
            "codeblock_decoration": ft.BoxDecoration(bgcolor=ft.Colors.TRANSPARENT),
        }
        return ft.Markdown(
            _source(part),
            selectable=True,
            extension_set=ft.MarkdownExtensionSet.GITHUB_WEB,
            soft_line_break=True,
            code_theme=code_theme,
            code_style_sheet=ft.MarkdownStyleSheet(code_text_style=ft.TextStyle(size=14, **_MONO), **plain),
            md_style_sheet=ft.MarkdownStyleSheet(**plain, **_MARKDOWN_STYLES),
            on_tap_link=self._shell.on(lambda event: self._link(str(event.data))),
        )


def _source(part: markdown.Part) -> str:
    if not part.code:
        return part.text
    ticks = "`" * max(3, 1 + max((len(run) for run in part.text.split() if set(run) == {"`"}), default=0))
    return f"{ticks}{part.language}\n{part.text}\n{ticks}"


def question_bubble(
    shell: Shell, message: Message, pictures: Mapping[str, bytes], versions: tuple[int, int], do: MessageActions
) -> ft.Control:
    """The control of a question. `pictures`: name -> thumbnail. `versions`: this version, from 1, and their number."""
    rows: list[ft.Control] = []
    if message.images:
        shown = [_picture(shell, message, number, pictures, do) for number in range(len(message.images))]
        rows.append(ft.Row(shown, wrap=True, spacing=6, run_spacing=6, alignment=ft.MainAxisAlignment.END))
    if message.text:
        rows.append(
            ft.Container(
                ft.Text(message.text, size=16, color=ft.Colors.ON_PRIMARY_CONTAINER),
                bgcolor=ft.Colors.PRIMARY_CONTAINER,
                border_radius=ft.BorderRadius(_RADIUS, _RADIUS, _RADIUS, 6),
                padding=ft.Padding.symmetric(horizontal=16, vertical=10),
            )
        )
    tools = [
        theme.small_button(ft.Icons.EDIT_OUTLINED, shell.say("mobile.edit"), shell.on(lambda: do.edit(message))),
        theme.small_button(
            ft.Icons.COPY_ROUNDED, shell.say("mobile.copy_question"), shell.on(lambda: shell.copy(message.text))
        ),
    ]
    rows.append(ft.Row([*_pager(shell, message, versions, do), *tools], alignment=ft.MainAxisAlignment.END, spacing=0))
    return ft.Container(
        ft.Column(rows, spacing=2, tight=True, horizontal_alignment=ft.CrossAxisAlignment.END),
        padding=ft.Padding.only(left=44),
    )


_RADIUS = 20


def _picture(
    shell: Shell, message: Message, number: int, pictures: Mapping[str, bytes], do: MessageActions
) -> ft.Control:
    name = message.images[number]
    label = shell.say("mobile.picture_of", number=number + 1, count=len(message.images))
    width, height = _SINGLE if len(message.images) == 1 else _OF_SEVERAL
    if name not in pictures:
        gone = ft.Icon(
            ft.Icons.BROKEN_IMAGE_OUTLINED, color=theme.MUTED, semantics_label=shell.say("mobile.picture_gone")
        )
        return ft.Container(gone, width=112, height=112, border_radius=16, bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH)
    return ft.Container(
        theme.picture(pictures[name], width, height, radius=16, label=label),
        border=ft.Border.all(1, ft.Colors.OUTLINE_VARIANT),
        margin=ft.Margin.only(bottom=4),
        on_click=shell.on(lambda: do.open_picture(message, name)),
        border_radius=16,
        ink=True,
        tooltip=shell.say("chat.enlarge"),
    )


def _pager(shell: Shell, message: Message, versions: tuple[int, int], do: MessageActions) -> list[ft.Control]:
    place, count = versions
    if count < 2:
        return []
    return [
        theme.small_button(
            ft.Icons.CHEVRON_LEFT, shell.say("mobile.version_before"), shell.on(lambda: do.choose(message, -1))
        ),
        theme.muted(f"{place} / {count}", semantics_label=shell.say("mobile.version", place=place, count=count)),
        theme.small_button(
            ft.Icons.CHEVRON_RIGHT, shell.say("mobile.version_after"), shell.on(lambda: do.choose(message, 1))
        ),
    ]


class AnswerBubble:
    """The control of an answer. `grow` updates it while the answer is running."""

    def __init__(
        self,
        shell: Shell,
        message: Message,
        boxes: bytes | None,
        versions: tuple[int, int],
        last: bool,
        do: MessageActions,
    ) -> None:
        """`boxes`: the picture with the boxes that the answer names. `last`: no question follows."""
        self._shell = shell
        self._words = MarkdownText(shell, do.open_link, message.text)
        self._progress = theme.muted(presentation.progress(Progress(), shell.language), size=14)
        ring = ft.ProgressRing(width=16, height=16, stroke_width=2)
        # Hidden as a whole: Flet draws an error in place of a Semantics whose content is hidden.
        self._wait = ft.Semantics(live_region=True, content=ft.Row([ring, self._progress], spacing=10))
        self._words.control.visible = bool(message.text)
        rows: list[ft.Control] = [self._words.control]
        if message.state == "streaming":
            self._wait.visible = not message.text
            rows.append(self._wait)
        else:
            rows += self._below(message, boxes, versions, last, do)
        self.control = ft.Container(
            ft.Column(rows, spacing=6, tight=True, horizontal_alignment=ft.CrossAxisAlignment.STRETCH),
            padding=ft.Padding.only(right=8),
        )

    def grow(self, progress: Progress) -> None:
        """Show the text so far, or the progress if there is none yet."""
        if progress.text:
            if self._wait.visible:
                self._wait.visible = False
                self._words.control.visible = True
                self._words.grow(progress.text)
                self._shell.draw(self.control)
            else:
                self._words.grow(progress.text)
        else:
            self._progress.value = presentation.progress(progress, self._shell.language)
            self._shell.draw(self._wait)

    def _below(
        self, message: Message, boxes: bytes | None, versions: tuple[int, int], last: bool, do: MessageActions
    ) -> list[ft.Control]:
        shell = self._shell
        rows: list[ft.Control] = []
        if boxes:
            image = theme.picture(boxes, *_SINGLE, radius=16, label=shell.say("chat.boxes"))
            look = shell.on(lambda: do.open_boxes(message))
            rows.append(
                ft.Row(
                    [ft.Container(image, on_click=look, border_radius=16, ink=True, tooltip=shell.say("chat.enlarge"))]
                )
            )
        for kind, text in presentation.notes(message, shell.language):
            colour = ft.Colors.ERROR if kind == "error" else theme.MUTED
            icon = ft.Icons.ERROR_OUTLINE if kind == "error" else ft.Icons.INFO_OUTLINE
            rows.append(
                ft.Row([ft.Icon(icon, size=18, color=colour), ft.Text(text, size=13, color=colour, expand=True)])
            )
        tools: list[ft.Control] = []
        if message.text:
            tools.append(
                theme.small_button(
                    ft.Icons.COPY_ROUNDED, shell.say("chat.copy"), shell.on(lambda: shell.copy(message.text))
                )
            )
        if last:
            again = shell.on(lambda: do.regenerate(message))
            tools.append(theme.small_button(ft.Icons.REFRESH_ROUNDED, shell.say("mobile.regenerate"), again))
        if message.text:
            tools.append(
                theme.small_button(
                    ft.Icons.SHARE_OUTLINED, shell.say("mobile.share"), shell.on(lambda: do.share(message))
                )
            )
            tools.append(
                theme.small_button(
                    ft.Icons.VOLUME_UP_OUTLINED, shell.say("mobile.listen"), shell.on(lambda: do.read_aloud(message))
                )
            )
        if message.stats and (figures := list(presentation.receipt(message.stats, shell.language))):
            brief = theme.muted(" · ".join(figures[:2]), max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
            explain = shell.on(lambda: do.show_receipt(message))
            receipt = ft.Container(
                brief,
                on_click=explain,
                padding=8,
                border_radius=10,
                ink=True,
                expand=True,
                tooltip=shell.say("mobile.receipt"),
            )
            pager = _pager(shell, message, versions, do)
            rows.append(ft.Row([*tools, *pager, receipt], spacing=0, margin=ft.Margin.only(left=-10)))
        else:
            rows.append(
                ft.Row([*tools, *_pager(shell, message, versions, do)], spacing=0, margin=ft.Margin.only(left=-10))
            )
        return rows
