"""The ways to attach a picture: camera, gallery, clipboard, samples, or a part of another picture.

In: the user's choice. Out: bytes for the draft of the open conversation. This file does not know messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import flet as ft

from impchat import paths
from impchat.errors import ImpChatError
from impchat_mobile import theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.guard import Handler

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator


class Notice(Protocol):
    """Shows a sentence above the question. `undo`: the action of an Undo button."""

    def __call__(self, text: str, undo: Handler | None = None, error: bool = False) -> None: ...


class AttachActions:
    """`navigator`: opens other screens. `notice`: shows a sentence above the question."""

    def __init__(self, shell: Shell, current: OpenConversation, navigator: Navigator, notice: Notice) -> None:
        self._shell = shell
        self._current = current
        self._navigator = navigator
        self._notice = notice

    async def attach(self, data: bytes) -> None:
        await self._current.attach(data)

    async def attach_all(self, pictures: Iterable[tuple[str, bytes | Path]]) -> None:
        """Attach all pictures, given as (file name, content). A notice lists those that cannot be attached, and why."""
        chat = self._current.chat  # the pictures go here, even if another conversation is opened meanwhile
        refused: dict[str, list[str]] = {}  # reason -> file names
        for name, picture in pictures:
            try:
                data = await asyncio.to_thread(picture.read_bytes) if isinstance(picture, Path) else picture
                await self._current.attach(data, chat)
            except (ImpChatError, OSError) as error:
                refused.setdefault(self._shell.sentence(error), []).append(name)
        if refused:
            sentences = [
                self._shell.say("mobile.refused", names=", ".join(names), reason=reason)
                for reason, names in refused.items()
            ]
            self._notice("\n".join(sentences), error=True)

    async def detach(self, name: str) -> None:
        """Remove a picture from the question, and offer Undo."""
        current, chat = self._current, self._current.chat
        place = current.place_of(name)
        try:
            data = await asyncio.to_thread(current.picture, name)
        except ImpChatError:  # its file is missing, so there is no Undo
            await current.detach(name)
            return
        await current.detach(name)
        self._notice(self._shell.say("mobile.detached"), undo=lambda: current.attach(data, chat, place))

    async def sample(self, path: Path) -> None:
        await self.attach(await asyncio.to_thread(path.read_bytes))

    async def camera(self) -> None:
        await self._navigator.camera(self.attach)

    async def gallery(self) -> None:
        files = await self._shell.picker.pick_files(
            file_type=ft.FilePickerFileType.IMAGE,
            allow_multiple=True,
            with_data=self._shell.page.web,
            cancel_upload_on_window_blur=False,
        )
        await self.attach_all((file.name, _content(file)) for file in files)

    async def paste(self) -> None:
        data = await self._shell.clipboard.get_image()
        if data:
            await self.attach(data)
        else:
            self._shell.notify(self._shell.say("mobile.nothing_to_paste"))

    async def retouch(self, name: str) -> None:
        """Open a picture of the question in the editor, to change it or to add a part of it."""
        data = await asyncio.to_thread(self._current.picture, name)
        await self._navigator.retouch(data, lambda changed: self._current.swap(name, changed), self.attach)

    async def ask_part(self, data: bytes) -> None:
        """Open a picture of an earlier question in the editor, to attach a part of it."""
        await self._navigator.retouch(data, self.attach, None)

    def more_ways(self) -> None:
        """Open a sheet with the ways that have no button of their own."""
        shell, say = self._shell, self._shell.say
        samples: list[ft.Control] = [
            ft.Container(
                theme.picture(path.read_bytes(), 160, 88, radius=14, label=say("chat.sample", number=number)),
                on_click=shell.on(lambda path=path: self._close_and(lambda: self.sample(path))),
                border_radius=14,
                ink=True,
            )
            for number, path in enumerate(paths.samples(self._current.demo), 1)
        ]  # fmt: skip
        shell.sheet(
            shell.action(ft.Icons.CONTENT_PASTE_ROUNDED, say("mobile.paste"), self.paste),
            shell.action(
                ft.Icons.PHOTO_LIBRARY_OUTLINED, say("mobile.library"), lambda: self._navigator.photos(self.attach)
            ),
            shell.action(ft.Icons.VISIBILITY_OFF_OUTLINED, say("mobile.eyes_free"), self._navigator.eyes_free),
            theme.heading(say("chat.samples")),
            ft.Container(
                ft.Row(samples, spacing=8, scroll=ft.ScrollMode.AUTO), padding=ft.Padding.only(left=16, right=16, top=8)
            ),
        )

    async def _close_and(self, do: Callable[[], Awaitable[None]]) -> None:
        self._shell.page.pop_dialog()
        await do()


def _content(file: ft.FilePickerFile) -> bytes | Path:
    """The content of a picked file: bytes in a browser, elsewhere its path."""
    if file.bytes is not None:
        return file.bytes
    assert file.path
    return Path(file.path)
