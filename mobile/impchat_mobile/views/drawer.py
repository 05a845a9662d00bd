"""The list of conversations, in a drawer or beside the conversation on a wide screen.

In: what the shelf holds. Out: one list for both places; open, search, pin, rename, delete with a way back.
This file does not know how conversations are kept.
"""

from __future__ import annotations

import asyncio
from datetime import date
from typing import TYPE_CHECKING, Any

import flet as ft

from impchat import remarks, settings
from impchat_mobile import looks, shelf
from impchat_mobile.shelf import Entry
from impchat_mobile.shell import Shell
from impchat_mobile.talk import Talk

if TYPE_CHECKING:
    from impchat_mobile.views.chat import ChatScreen

_FIRST = 60  # entries; more on request
_SEARCH_WAIT_S = 0.2  # behind the last letter


class History:
    def __init__(self, shell: Shell, talk: Talk, go: Any) -> None:
        self._shell = shell
        self._talk = talk
        self._go = go
        self._limit = _FIRST
        self._search: asyncio.Task[None] | None = None

    def attach(self, screen: ChatScreen, drawer: ft.NavigationDrawer, side: ft.Container) -> None:
        """Fill the places where the list is shown: one of them at a time is seen."""
        shell, say = self._shell, self._shell.say
        self.screen = screen
        self._field = looks.search(say("mobile.search"), shell.on(self._typed))
        self._entries = ft.Column(spacing=0, tight=True)
        foot = ft.Column(
            [
                ft.Divider(height=1, color=ft.Colors.OUTLINE_VARIANT),
                self._place(ft.Icons.PHOTO_LIBRARY_OUTLINED, say("mobile.library"), self._go.photos_alone),
                self._place(ft.Icons.MEMORY_ROUNDED, say("mobile.models"), self._go.models),
                self._place(ft.Icons.LAPTOP_ROUNDED, say("mobile.connect"), self._go.connect),
                self._place(ft.Icons.SETTINGS_OUTLINED, say("mobile.settings"), self._go.settings),
            ],
            spacing=0,
            tight=True,
        )
        head = ft.Container(self._field, padding=ft.Padding.only(left=12, right=12, top=14, bottom=4))
        if shell.wide:
            rest = ft.Column([self._entries], expand=True, scroll=ft.ScrollMode.AUTO)
            side.content = ft.Column([head, rest, foot], spacing=0)
            drawer.controls = []
        else:
            drawer.controls = [head, self._entries, foot]
            side.content = None

    def _place(self, icon: ft.IconData, text: str, do: Any) -> ft.Control:
        async def opened() -> None:
            await self._close()
            await do()

        return ft.ListTile(
            leading=ft.Icon(icon, color=looks.FAINT), title=ft.Text(text), on_click=self._shell.on(opened), dense=True
        )

    async def _close(self) -> None:
        if not self._shell.wide:
            await self._shell.page.close_drawer()

    async def refresh(self) -> None:
        """Read the list again."""
        shell = self._shell
        query = self._field.value or ""
        found = await asyncio.to_thread(
            shelf.groups, shell.app, shell.thumbnails, query, shell.language, date.today(), self._limit + 1
        )
        controls: list[ft.Control] = []
        count = 0
        for group in found:
            if group.heading:
                controls.append(looks.heading(shell.say(group.heading)))
            controls += [self._entry(entry) for entry in group.entries]
            count += len(group.entries)
        if not controls:
            controls = [
                ft.Container(
                    looks.faint(shell.say("history.nothing_found" if query.strip() else "chat.history_empty"), size=14),
                    padding=20,
                )
            ]
        if count > self._limit and not query.strip():
            controls.append(ft.TextButton(shell.say("mobile.older"), on_click=shell.on(self._more)))
        self._entries.controls = controls
        shell.draw(self._entries)

    def _entry(self, entry: Entry) -> ft.Control:
        shell = self._shell
        here = entry.uuid == self._talk.conversation
        cover: ft.Control = (
            ft.Image(
                entry.cover, width=40, height=40, fit=ft.BoxFit.COVER, border_radius=10, exclude_from_semantics=True
            )
            if entry.cover
            else ft.Container(
                ft.Icon(ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED, size=18, color=looks.FAINT),
                width=40,
                height=40,
                border_radius=10,
                bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH,
            )
        )
        return ft.ListTile(
            leading=cover,
            title=ft.Text(entry.title, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS, size=15),
            subtitle=looks.faint(entry.snippet, max_lines=2, overflow=ft.TextOverflow.ELLIPSIS)
            if entry.snippet
            else None,
            trailing=looks.small(
                ft.Icons.MORE_HORIZ_ROUNDED,
                shell.say("mobile.more_of", title=entry.title),
                shell.on(lambda: self._choices(entry)),
            ),
            selected=here,
            selected_tile_color=ft.Colors.SURFACE_CONTAINER_HIGHEST,
            selected_color=ft.Colors.ON_SURFACE,
            content_padding=ft.Padding.only(left=16, right=4),
            on_click=shell.on(lambda: self._open(entry.uuid)),
            on_long_press=shell.on(lambda: self._choices(entry)),
        )

    def _choices(self, entry: Entry) -> None:
        shell, say = self._shell, self._shell.say
        pin = ft.Icons.PUSH_PIN_OUTLINED
        shell.sheet(
            shell.action(pin, say("mobile.unpin" if entry.pinned else "mobile.pin"), lambda: self._pin(entry)),
            shell.action(ft.Icons.DRIVE_FILE_RENAME_OUTLINE, say("chat.rename"), lambda: self.rename(entry.uuid)),
            shell.action(ft.Icons.IOS_SHARE_ROUNDED, say("mobile.export"), lambda: self._go.export(entry.uuid)),
            shell.action(
                ft.Icons.DELETE_OUTLINE_ROUNDED, say("chat.delete"), lambda: self.delete(entry.uuid), danger=True
            ),
        )

    async def _more(self) -> None:
        self._limit += 4 * _FIRST
        await self.refresh()

    def _typed(self) -> None:
        if self._search:
            self._search.cancel()
        self._search = asyncio.get_running_loop().create_task(self._search_later())

    async def _search_later(self) -> None:
        await asyncio.sleep(_SEARCH_WAIT_S)
        await self.refresh()

    # What is done with a conversation

    async def open(self, uuid: str) -> None:
        """Show this conversation."""
        await self.screen.open(uuid)

    async def leave(self) -> None:
        """Show a new conversation."""
        await self.screen.open(None)

    async def _open(self, uuid: str) -> None:
        await self._close()
        await self.open(uuid)

    async def _pin(self, entry: Entry) -> None:
        await self._change(entry.uuid, pinned=not entry.pinned)
        await self.refresh()

    async def rename(self, uuid: str) -> None:
        """Ask for another title."""
        shell = self._shell
        row = await asyncio.to_thread(shell.app.history.conversation, uuid, settings.OWNER)

        async def done(title: str) -> None:
            if title := title.strip()[: settings.TITLE_CHARS]:
                await self._change(uuid, title=title)
                await self._seen_again(uuid)

        title = remarks.title_of(row, shell.language)
        shell.ask_text(shell.say("chat.rename"), shell.say("mobile.title"), title, shell.say("mobile.save"), done)

    async def _change(self, uuid: str, **values: Any) -> None:
        history = self._shell.app.history
        await asyncio.to_thread(lambda: history.update_conversation(uuid, settings.OWNER, **values))

    async def delete(self, uuid: str) -> None:
        """Move it to the deleted ones, and say so with a way back."""
        shell, history = self._shell, self._shell.app.history
        row = await asyncio.to_thread(history.conversation, uuid, settings.OWNER)
        here = uuid == self._talk.conversation

        async def back() -> None:
            await asyncio.to_thread(history.restore_conversation, uuid, settings.OWNER)
            if here:
                await self.screen.open(uuid)
            await self.refresh()

        await asyncio.to_thread(history.delete_conversation, uuid, settings.OWNER)
        if here:
            await self.screen.open(None)
        await self.refresh()
        shell.tell(shell.say("chat.deleted", title=remarks.title_of(row, shell.language)), undo=back)

    async def _seen_again(self, uuid: str) -> None:
        if uuid == self._talk.conversation:
            await self._talk.refresh()
            self.screen.changed()
        await self.refresh()
