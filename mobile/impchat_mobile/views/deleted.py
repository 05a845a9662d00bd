"""The deleted chats: restore them, or delete them permanently.

In: the deleted conversations of the history. Out: a list with both actions for each, and one to empty the list.
This file does not know how conversations are stored.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import flet as ft

from impchat import presentation, settings, storage
from impchat.messages import Conversation
from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator

_PAGE_SIZE = 60  # rows; as many are added when the user scrolls to the end


class DeletedScreen(Screen):
    def __init__(self, shell: Shell, navigator: Navigator) -> None:
        self._shell = shell
        self._navigator = navigator
        self._limit = _PAGE_SIZE

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        self._rows: dict[str, ft.Control] = {}
        self._list = ft.ListView(
            expand=True,
            build_controls_on_demand=False,  # for the reason given in drawer.py
            on_scroll=shell.on(self._scrolled),
            scroll_interval=100,
            padding=ft.Padding.only(bottom=32),
        )
        self._nothing = ft.Container(theme.muted(say("mobile.deleted_none"), size=14), padding=20, visible=False)
        self._empty = ft.TextButton(say("mobile.empty"), on_click=shell.on(self._ask_empty), visible=False)
        page = ft.Column([self._nothing, self._list], expand=True, spacing=0)
        return ft.View(
            [ft.SafeArea(theme.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.deleted"), self._empty),
        )

    async def shown(self) -> None:
        await self._draw()

    async def _draw(self) -> None:
        history = self._shell.app.history
        found = await asyncio.to_thread(lambda: history.conversations(settings.OWNER, deleted=True, limit=self._limit))
        self._rows = {c.uuid: self._rows.get(c.uuid) or self._row(c) for c in found}
        self._list.controls = list(self._rows.values())
        self._nothing.visible, self._empty.visible = not found, bool(found)
        self._shell.page.update()

    async def _scrolled(self, event: ft.OnScrollEvent) -> None:
        full = len(self._rows) >= self._limit
        if full and event.pixels > event.max_scroll_extent - 2 * event.viewport_dimension:
            self._limit += _PAGE_SIZE
            await self._draw()

    def _row(self, conversation: Conversation) -> ft.Control:
        shell, say = self._shell, self._shell.say
        title = presentation.title_of(conversation, shell.language)

        async def restore() -> None:
            await asyncio.to_thread(shell.app.history.restore_conversation, conversation.uuid, settings.OWNER)
            await self._changed()
            shell.notify(say("mobile.restored", title=title))

        async def purge() -> None:
            await asyncio.to_thread(shell.app.history.purge_conversation, conversation.uuid, settings.OWNER)
            await self._changed()

        def ask() -> None:
            message = ft.Text(say("mobile.purge_says"))
            shell.confirm(say("mobile.purge_title", title=title), message, say("mobile.purge"), purge, danger=True)

        return ft.ListTile(
            title=ft.Text(title, max_lines=2, overflow=ft.TextOverflow.ELLIPSIS, size=15),
            subtitle=theme.muted(say("mobile.deleted_on", day=(conversation.deleted_utc or "")[:10])),
            trailing=ft.Row(
                [
                    theme.button(
                        ft.Icons.RESTORE_FROM_TRASH_OUTLINED, say("mobile.restore_of", title=title), shell.on(restore)
                    ),
                    theme.button(
                        ft.Icons.DELETE_FOREVER_OUTLINED,
                        say("mobile.purge_of", title=title),
                        shell.on(ask),
                        color=ft.Colors.ERROR,
                    ),
                ],
                tight=True,
                spacing=0,
            ),
            content_padding=ft.Padding.only(left=20, right=8),
        )

    async def _changed(self) -> None:
        await self._draw()
        await self._navigator.history.refresh()

    def _ask_empty(self) -> None:
        shell, say = self._shell, self._shell.say

        async def empty() -> None:
            await asyncio.to_thread(storage.empty_deleted, shell.app)
            await self._draw()

        message = ft.Text(say("mobile.purge_says"))
        shell.confirm(say("mobile.empty_title"), message, say("mobile.empty"), empty, danger=True)
