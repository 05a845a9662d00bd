"""Which screen follows which: the one place that knows them all.

In: the shell and the talk. Out: methods that open a screen, given to the screens that need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from impchat_mobile.shell import Shell
from impchat_mobile.talk import Talk


class Go:
    def __init__(self, shell: Shell, talk: Talk) -> None:
        from impchat_mobile.views.drawer import History

        self._shell = shell
        self._talk = talk
        self.history = History(shell, talk, self)

    def where(self) -> str:
        """Where the open conversation is answered, and by which model."""
        app = self._shell.app
        name = app.bundle.name if app.bundle else app.model
        return self._shell.say("mobile.here", model=name)

    async def camera(self, take: Callable[[bytes], Any]) -> None:
        from impchat_mobile.views.camera import CameraScreen

        await self._shell.push(CameraScreen(self._shell, take))

    async def viewer(self, pictures: Sequence[bytes], first: int, part: Callable[[bytes], Any] | None) -> None:
        from impchat_mobile.views.viewer import ViewerScreen

        await self._shell.push(ViewerScreen(self._shell, pictures, first, part))

    async def retouch(self, data: bytes, replace: Callable[[bytes], Any], add: Callable[[bytes], Any] | None) -> None:
        from impchat_mobile.views.retouch import RetouchScreen

        await self._shell.push(RetouchScreen(self._shell, data, replace, add))

    async def photos(self, take: Callable[[bytes], Any]) -> None:
        from impchat_mobile.views.photos import PhotosScreen

        await self._shell.push(PhotosScreen(self._shell, self, take))

    async def photos_alone(self) -> None:
        """The photo library; a picture taken there goes into the open conversation."""

        async def take(data: bytes) -> None:
            await self._talk.attach(data)

        await self.photos(take)

    async def connect(self) -> None:
        from impchat_mobile.views.connect import ConnectScreen

        await self._shell.push(ConnectScreen(self._shell, self))

    async def export(self, conversation: str) -> None:
        """Give the conversation away as one file."""
        from impchat_mobile.views.export import export

        await export(self._shell, conversation)

    async def settings(self) -> None:
        from impchat_mobile.views.settings import SettingsScreen

        await self._shell.push(SettingsScreen(self._shell, self))

    async def speed(self) -> None:
        from impchat_mobile.views.speed import SpeedScreen

        await self._shell.push(SpeedScreen(self._shell))

    async def about(self) -> None:
        from impchat_mobile.views.about import AboutScreen

        await self._shell.push(AboutScreen(self._shell))

    async def leave(self) -> None:
        """The open conversation is about to be removed: a new one in its place."""
        self._talk.stop()
        await self._talk.settled()
        await self.history.leave()

    async def models(self) -> None:
        from impchat_mobile.views.models import ModelsScreen

        await self._shell.push(ModelsScreen(self._shell, self))

    async def eyes_free(self) -> None:
        from impchat_mobile.views.eyes_free import EyesFreeScreen

        await self._shell.push(EyesFreeScreen(self._shell, self._talk))

    async def place(self) -> None:
        await self.models()
