"""The list of conversations, in a drawer, or next to the open one on a wide screen.

In: the groups of `history_model`. Out: one list for both places; open, search, pin, rename, delete with Undo.
This file does not know how conversations are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import date
from typing import TYPE_CHECKING

import flet as ft

from impchat import presentation, settings
from impchat_mobile import history_model, theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.history_model import HistoryEntry

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator
    from impchat_mobile.views.chat import ChatScreen

_PAGE_SIZE = 60  # entries; as many are added when the user scrolls to the end
_SEARCH_WAIT_S = 0.2  # after the last keystroke


class HistoryDrawer:
    def __init__(self, shell: Shell, current: OpenConversation, navigator: Navigator) -> None:
        self._shell = shell
        self._current = current
        self._navigator = navigator
        self._limit = _PAGE_SIZE
        self._search: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()

    def attach(self, screen: ChatScreen, drawer: ft.NavigationDrawer, side: ft.Container) -> None:
        """Create the list in `drawer`, or on a wide page in `side`."""
        shell, say = self._shell, self._shell.say
        self.screen = screen
        self._rows: dict[str, ConversationRow] = {}
        self._headings: dict[str, ft.Control] = {}
        self._field = theme.search_field(say("mobile.search"), shell.on(self._typed))
        self._empty_text = theme.muted("", size=14)
        self._empty = ft.Container(self._empty_text, padding=20, visible=False)
        self._entries = ft.ListView(
            expand=True,
            build_controls_on_demand=False,  # otherwise a press on a row that moves down is lost
            on_scroll=shell.on(self._scrolled),
            scroll_interval=100,
        )
        self._notice_text = ft.Text("", expand=True, color=ft.Colors.ON_INVERSE_SURFACE, max_lines=2)
        self._undo = ft.TextButton(
            say("mobile.undo"),
            style=ft.ButtonStyle(color=ft.Colors.INVERSE_PRIMARY),
            on_click=shell.on(self._undo_delete),
        )
        self._notice = ft.Container(
            ft.Row([ft.Semantics(live_region=True, content=self._notice_text, expand=True), self._undo]),
            padding=ft.Padding.only(left=16, right=4),
            margin=ft.Margin.symmetric(horizontal=12, vertical=8),
            border_radius=14,
            bgcolor=ft.Colors.INVERSE_SURFACE,
            visible=False,
        )
        shortcuts = [
            self._shortcut(ft.Icons.PHOTO_LIBRARY_OUTLINED, say("mobile.library"), self._navigator.photo_library),
            self._shortcut(ft.Icons.MEMORY_ROUNDED, say("mobile.models"), self._navigator.models),
            self._shortcut(ft.Icons.LAPTOP_ROUNDED, say("mobile.connect"), self._navigator.connect),
            self._shortcut(ft.Icons.SETTINGS_OUTLINED, say("mobile.settings"), self._navigator.settings),
        ]
        self._content = ft.Container(
            ft.Column(
                [
                    ft.Container(self._field, padding=ft.Padding.only(left=12, right=12, top=14, bottom=4)),
                    self._empty,
                    self._entries,
                    self._notice,
                    ft.Divider(height=1, color=ft.Colors.OUTLINE_VARIANT),
                    ft.Row(shortcuts, spacing=0, vertical_alignment=ft.CrossAxisAlignment.START),
                ],
                spacing=0,
            )
        )
        drawer.controls = [] if shell.wide else [self._content]
        side.content = self._content if shell.wide else None
        self._set_height()

    def _set_height(self) -> None:
        """Set the height to that of the drawer, which Flet does not report, so that only the list scrolls."""
        edges = self._shell.page.media.padding
        height = (self._shell.page.height or 0) - edges.top - edges.bottom
        self._content.height = None if self._shell.wide else height

    def _shortcut(self, icon: ft.IconData, text: str, do: Callable[[], Awaitable[None]]) -> ft.Control:
        async def opened() -> None:
            await self._close()
            await do()

        return ft.Container(
            ft.Column(
                [
                    ft.Icon(icon, color=theme.MUTED),
                    ft.Text(text, size=12, color=theme.MUTED, text_align=ft.TextAlign.CENTER, max_lines=2),
                ],
                spacing=2,
                tight=True,
                horizontal_alignment=ft.CrossAxisAlignment.CENTER,
            ),
            padding=ft.Padding.symmetric(horizontal=2, vertical=10),
            border_radius=14,
            expand=True,
            ink=True,
            on_click=self._shell.on(opened),
        )

    async def show(self) -> None:
        """Open the drawer."""
        self._notice.visible = False
        self._set_height()
        self._shell.draw(self._content)
        await self.refresh()
        try:
            await self._shell.page.show_drawer()
        except TimeoutError:  # the view no longer responds, but a new one does
            await self._shell.redraw()
            await self.refresh()
            await self._shell.page.show_drawer()

    async def _close(self) -> None:
        if not self._shell.wide:
            with contextlib.suppress(TimeoutError):  # the choice still takes effect
                await self._shell.page.close_drawer()

    async def refresh(self) -> None:
        """Read the list again. Conversations that stay listed keep their row, so a press on one is not lost."""
        shell = self._shell
        async with self._reading:
            query = (self._field.value or "").strip()
            found = await asyncio.to_thread(
                history_model.groups, shell.app, query, shell.language, date.today(), self._limit
            )
            before, self._rows = self._rows, {}
            controls: list[ft.Control] = []
            for group in found:
                if group.heading:
                    if group.heading not in self._headings:
                        self._headings[group.heading] = theme.heading(shell.say(group.heading))
                    controls.append(self._headings[group.heading])
                for entry in group.entries:
                    row = self._rows[entry.uuid] = before.get(entry.uuid) or ConversationRow(shell, self)
                    controls.append(row.show(entry, entry.uuid == self._current.conversation))
            self._entries.controls = controls
            self._empty.visible = not controls
            self._empty_text.value = shell.say("history.nothing_found" if query else "chat.history_empty")
            shell.draw(self._empty, self._entries)

    def show_actions(self, entry: HistoryEntry) -> None:
        """Open a sheet with the actions on a conversation of the list."""
        shell, say = self._shell, self._shell.say
        pin = ft.Icons.PUSH_PIN_OUTLINED
        shell.sheet(
            shell.action(pin, say("mobile.unpin" if entry.pinned else "mobile.pin"), lambda: self._pin(entry)),
            shell.action(ft.Icons.DRIVE_FILE_RENAME_OUTLINE, say("chat.rename"), lambda: self.rename(entry.uuid)),
            shell.action(ft.Icons.IOS_SHARE_ROUNDED, say("mobile.export"), lambda: self._navigator.export(entry.uuid)),
            shell.action(
                ft.Icons.DELETE_OUTLINE_ROUNDED,
                say("chat.delete"),
                lambda: self.delete(entry.uuid, in_list=True),
                danger=True,
            ),
        )

    async def _scrolled(self, event: ft.OnScrollEvent) -> None:
        """Load more entries shortly before the end of the list."""
        full = len(self._rows) >= self._limit
        if full and event.pixels > event.max_scroll_extent - 2 * event.viewport_dimension:
            await self._more()

    async def _more(self) -> None:
        self._limit += _PAGE_SIZE
        await self.refresh()

    def _typed(self) -> None:
        if self._search:
            self._search.cancel()
        self._search = asyncio.get_running_loop().create_task(self._search_later())

    async def _search_later(self) -> None:
        await asyncio.sleep(_SEARCH_WAIT_S)
        await self.refresh()

    # Actions on a conversation

    async def open(self, uuid: str) -> None:
        """Show this conversation."""
        await self.screen.open(uuid)

    async def open_new(self) -> None:
        """Show a new conversation."""
        await self.screen.open(None)

    async def choose(self, uuid: str) -> None:
        """Close the drawer and show this conversation."""
        await self._close()
        await self.open(uuid)

    async def _pin(self, entry: HistoryEntry) -> None:
        await self._change(entry.uuid, pinned=not entry.pinned)
        await self.refresh()

    async def rename(self, uuid: str) -> None:
        """Ask for a new title."""
        shell = self._shell
        row = await asyncio.to_thread(shell.app.history.conversation, uuid, settings.OWNER)

        async def done(title: str) -> None:
            if title := title.strip()[: settings.TITLE_CHARS]:
                await self._change(uuid, title=title)
                await self._refresh_title(uuid)

        title = presentation.title_of(row, shell.language)
        shell.ask_text(shell.say("chat.rename"), shell.say("mobile.title"), title, shell.say("mobile.save"), done)

    async def _change(self, uuid: str, title: str | None = None, pinned: bool | None = None) -> None:
        history = self._shell.app.history
        await asyncio.to_thread(lambda: history.update_conversation(uuid, settings.OWNER, title=title, pinned=pinned))

    async def delete(self, uuid: str, in_list: bool = False) -> None:
        """Delete a conversation and offer Undo. `in_list`: in the list, because the drawer would cover a snack bar."""
        shell, history = self._shell, self._shell.app.history
        row = await asyncio.to_thread(history.conversation, uuid, settings.OWNER)
        here = uuid == self._current.conversation

        async def restore() -> None:
            await asyncio.to_thread(history.restore_conversation, uuid, settings.OWNER)
            if here:
                await self.screen.open(uuid)
            await self.refresh()

        await asyncio.to_thread(history.delete_conversation, uuid, settings.OWNER)
        if here:
            await self.screen.open(None)
        await self.refresh()
        message = shell.say("chat.deleted", title=presentation.title_of(row, shell.language))
        if in_list and not shell.wide:
            self._notice_text.value, self._restore, self._notice.visible = message, restore, True
            shell.draw(self._notice)
        else:
            shell.notify(message, undo=restore)

    async def _undo_delete(self) -> None:
        self._notice.visible = False
        shell = self._shell
        shell.draw(self._notice)
        await self._restore()

    async def _refresh_title(self, uuid: str) -> None:
        if uuid == self._current.conversation:
            await self._current.refresh()
            self.screen.changed()
        await self.refresh()


class ConversationRow:
    """The row of a conversation. Its controls are kept as long as the conversation is listed."""

    def __init__(self, shell: Shell, history: HistoryDrawer) -> None:
        self._shell = shell
        self._entry = HistoryEntry("", "")
        self._cover = ft.Container(width=40, height=40, border_radius=10, bgcolor=ft.Colors.SURFACE_CONTAINER_HIGH)
        self._title = ft.Text("", max_lines=1, overflow=ft.TextOverflow.ELLIPSIS, size=15)
        self._snippet = theme.muted("", max_lines=2, overflow=ft.TextOverflow.ELLIPSIS)
        self._more_icon = theme.icon(ft.Icons.MORE_HORIZ_ROUNDED, "", 18, theme.MUTED)
        show_actions = shell.on(lambda: history.show_actions(self._entry))
        self._more = ft.IconButton(
            self._more_icon, padding=0, size_constraints=ft.BoxConstraints(40, 40), on_click=show_actions
        )
        self._tile = ft.ListTile(
            leading=self._cover,
            title=self._title,
            trailing=self._more,
            selected_tile_color=ft.Colors.SURFACE_CONTAINER_HIGHEST,
            selected_color=ft.Colors.ON_SURFACE,
            content_padding=ft.Padding.only(left=16, right=4),
            on_click=shell.on(lambda: history.choose(self._entry.uuid)),
            on_long_press=show_actions,
        )

    def show(self, entry: HistoryEntry, here: bool) -> ft.Control:
        """Update the row. `here`: it is the open conversation."""
        before, self._entry = self._entry, entry
        if self._cover.content is None or entry.cover != before.cover:
            self._cover.content = (
                ft.Image(entry.cover, width=40, height=40, fit=ft.BoxFit.COVER, border_radius=10,
                         exclude_from_semantics=True)
                if entry.cover
                else ft.Icon(ft.Icons.CHAT_BUBBLE_OUTLINE_ROUNDED, size=18, color=theme.MUTED)
            )  # fmt: skip
        self._title.value, self._snippet.value = entry.title, entry.snippet
        self._more_icon.semantics_label = self._more.tooltip = self._shell.say("mobile.more_of", title=entry.title)
        self._tile.subtitle = self._snippet if entry.snippet else None
        self._tile.selected = here
        return self._tile
