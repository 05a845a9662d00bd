"""The ways by which a picture comes into the next question: picked, pasted, one of the samples, a part of another one.

In: what a person chooses. Out: bytes for the talk's draft. This file does not know messages.
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
    """Says a sentence beside the question; with `undo`, a way back."""

    def __call__(self, text: str, undo: Handler | None = None, error: bool = False) -> None: ...


class AttachActions:
    """`go` opens the other screens; `notice` says a sentence beside the question, with a way back."""

    def __init__(self, shell: Shell, talk: OpenConversation, go: Navigator, notice: Notice) -> None:
        self._shell = shell
        self._talk = talk
        self._go = go
        self._notice = notice

    async def attach(self, data: bytes) -> None:
        await self._talk.attach(data)

    async def attach_all(self, pictures: Iterable[tuple[str, bytes | Path]]) -> None:
        """Attach those that can be; of the others it is said which and why. The names are those of their files."""
        chat = self._talk.chat  # where they go, whatever is opened meanwhile
        refused: dict[str, list[str]] = {}  # why -> which
        for name, picture in pictures:
            try:
                data = await asyncio.to_thread(picture.read_bytes) if isinstance(picture, Path) else picture
                await self._talk.attach(data, chat)
            except (ImpChatError, OSError) as error:
                refused.setdefault(self._shell.sentence(error), []).append(name)
        if refused:
            said = [
                self._shell.say("mobile.refused", names=", ".join(names), reason=reason)
                for reason, names in refused.items()
            ]
            self._notice("\n".join(said), error=True)

    async def detach(self, name: str) -> None:
        """Take a picture out of the question, with a way back."""
        talk, chat = self._talk, self._talk.chat
        place = talk.place_of(name)
        try:
            data = await asyncio.to_thread(talk.picture, name)
        except ImpChatError:  # its file is gone
            await talk.detach(name)
            return
        await talk.detach(name)
        self._notice(self._shell.say("mobile.detached"), undo=lambda: talk.attach(data, chat, place))

    async def sample(self, path: Path) -> None:
        await self.attach(await asyncio.to_thread(path.read_bytes))

    async def camera(self) -> None:
        await self._go.camera(self.attach)

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
            self._shell.tell(self._shell.say("mobile.nothing_to_paste"))

    async def retouch(self, name: str) -> None:
        """Look at a picture of the question, change it or add a part of it."""
        data = await asyncio.to_thread(self._talk.picture, name)
        await self._go.retouch(data, lambda changed: self._talk.swap(name, changed), self.attach)

    async def part(self, data: bytes) -> None:
        """Ask about a part of a picture that was asked about before."""
        await self._go.retouch(data, self.attach, None)

    def more_ways(self) -> None:
        """The ways that have no button of their own."""
        shell, say = self._shell, self._shell.say
        samples: list[ft.Control] = [
            ft.Container(
                theme.whole(path.read_bytes(), 160, 88, radius=14, label=say("chat.sample", number=number)),
                on_click=shell.on(lambda path=path: self._close_and(lambda: self.sample(path))),
                border_radius=14,
                ink=True,
            )
            for number, path in enumerate(paths.samples(self._talk.demo), 1)
        ]  # fmt: skip
        shell.sheet(
            shell.action(ft.Icons.CONTENT_PASTE_ROUNDED, say("mobile.paste"), self.paste),
            shell.action(ft.Icons.PHOTO_LIBRARY_OUTLINED, say("mobile.library"), lambda: self._go.photos(self.attach)),
            shell.action(ft.Icons.VISIBILITY_OFF_OUTLINED, say("mobile.eyes_free"), self._go.eyes_free),
            theme.heading(say("chat.samples")),
            ft.Container(
                ft.Row(samples, spacing=8, scroll=ft.ScrollMode.AUTO), padding=ft.Padding.only(left=16, right=16, top=8)
            ),
        )

    async def _close_and(self, do: Callable[[], Awaitable[None]]) -> None:
        self._shell.page.pop_dialog()
        await do()


def _content(file: ft.FilePickerFile) -> bytes | Path:
    """What was picked: its bytes in a browser, elsewhere its place."""
    if file.bytes is not None:
        return file.bytes
    assert file.path
    return Path(file.path)
