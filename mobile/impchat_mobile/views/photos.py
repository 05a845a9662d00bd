"""The photo library: all pictures of the history, with a search for the text of their conversations.

In: the history. Out: a grid; each picture can be enlarged, attached again, or lead to its conversation.
This file does not know how pictures are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import flet as ft

from impchat import presentation, settings
from impchat.history.store import Asked
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

_MAX_PICTURES = 300


class PhotosScreen(Screen):
    def __init__(self, shell: Shell, navigator: Navigator, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._shell = shell
        self._navigator = navigator
        self._take = take
        self._search: asyncio.Task[None] | None = None

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._field = theme.search_field(say("mobile.search_photos"), shell.on(self._typed))
        self._grid = ft.GridView(
            expand=True, max_extent=140, spacing=6, run_spacing=6, padding=ft.Padding.only(left=12, right=12, bottom=16)
        )
        self._cells: dict[tuple[str, str], ft.Control] = {}
        self._nothing = ft.Container(
            ft.Column(
                [
                    ft.Icon(ft.Icons.PHOTO_LIBRARY_OUTLINED, size=40, color=theme.MUTED),
                    ft.Text(say("mobile.no_photos"), color=theme.MUTED, text_align=ft.TextAlign.CENTER),
                ],
                horizontal_alignment=ft.CrossAxisAlignment.CENTER,
                tight=True,
            ),
            alignment=ft.Alignment.CENTER,
            padding=40,
            visible=False,
        )
        page = ft.Column(
            [ft.Container(self._field, padding=ft.Padding.symmetric(horizontal=12)), self._nothing, self._grid],
            expand=True,
            horizontal_alignment=ft.CrossAxisAlignment.STRETCH,
        )
        return ft.View(
            [ft.SafeArea(page, expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.library")),
        )

    async def shown(self) -> None:
        await self._draw()

    def _typed(self) -> None:
        if self._search:
            self._search.cancel()
        self._search = asyncio.get_running_loop().create_task(self._search_later())

    async def _search_later(self) -> None:
        await asyncio.sleep(0.2)
        await self._draw()

    def _read(self, query: str) -> list[tuple[Asked, bytes]]:
        history, owner = self._shell.app.history, settings.OWNER
        found = history.pictures(owner, _MAX_PICTURES)
        if query.strip():
            inside = {hit.conversation for hit in history.search(owner, query, _MAX_PICTURES)}
            found = [asked for asked in found if asked.conversation in inside]
        small = self._shell.app.thumbnails.available(asked.image for asked in found)
        return [(self._titled(asked), small[asked.image]) for asked in found if asked.image in small]

    def _titled(self, asked: Asked) -> Asked:
        if asked.title:
            return asked
        conversation = self._shell.app.history.conversation(asked.conversation, settings.OWNER)
        return replace(asked, title=presentation.title_of(conversation, self._shell.language))

    async def _draw(self) -> None:
        found = await asyncio.to_thread(self._read, self._field.value or "")
        self._cells = {
            (asked.conversation, asked.image): self._cells.get((asked.conversation, asked.image))
            or self._cell(asked, data)
            for asked, data in found
        }
        self._grid.controls = list(self._cells.values())
        self._nothing.visible = not found
        self._grid.visible = bool(found)
        self._shell.page.update()

    def _cell(self, asked: Asked, data: bytes) -> ft.Control:
        label = self._shell.say("mobile.photo_of", title=asked.title)
        return ft.Container(
            ft.Image(data, fit=ft.BoxFit.COVER, border_radius=12, semantics_label=label),
            on_click=self._shell.on(lambda: self._show_actions(asked)),
            border_radius=12,
            ink=True,
        )

    def _show_actions(self, asked: Asked) -> None:
        shell, say = self._shell, self._shell.say

        async def bytes_of() -> bytes:
            return await asyncio.to_thread(shell.app.history.image_bytes, asked.image)

        async def open_chat() -> None:
            await shell.pop()
            await self._navigator.history.open(asked.conversation)

        async def ask_again() -> None:
            data = await bytes_of()
            await shell.pop()
            await self._take(data)

        async def look() -> None:
            await self._navigator.viewer([await bytes_of()], 0, None)

        shell.sheet(
            ft.Container(
                ft.Text(asked.title, weight=ft.FontWeight.W_600, max_lines=2, overflow=ft.TextOverflow.ELLIPSIS),
                padding=ft.Padding.only(left=20, right=20, bottom=8),
            ),
            shell.action(ft.Icons.ZOOM_IN_ROUNDED, say("chat.enlarge"), look),
            shell.action(ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED, say("mobile.open_chat"), open_chat),
            shell.action(ft.Icons.ADD_PHOTO_ALTERNATE_OUTLINED, say("mobile.ask_again"), ask_again),
        )
