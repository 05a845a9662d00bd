"""The start of the app: opens the data on a thread, shows the first screen, and follows the app's lifecycle.

In: Flet's page. Out: the chat screen, or an error message if the data cannot be opened.
This file does not know what is on the screens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import flet as ft

from impchat import applock, machine, preferences, settings
from impchat.app import App
from impchat.errors import HistoryError, ImpChatError, RequestError
from impchat.peers.servers import Server
from impchat.texts import say
from impchat_mobile import theme
from impchat_mobile.app_shell import Shell, language_of
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.guard import Handler, guarded, log_error
from impchat_mobile.links import pairing_link
from impchat_mobile.navigator import Navigator
from impchat_mobile.tuning import PHONE, tuned
from impchat_mobile.views.chat import ChatScreen
from impchat_mobile.views.lock import LockScreen

ASSETS = Path(__file__).parents[1] / "assets"


def run() -> None:
    """Run the app on a phone, or on the platform that `flet run` selects."""
    ft.context.disable_auto_update()
    ft.run(main, assets_dir=str(ASSETS), no_cdn=True)


def data_dir() -> Path | None:
    """The persistent folder that Flet provides on a phone; None: the core's default."""
    given = os.environ.get("FLET_APP_STORAGE_DATA")
    return Path(given) / "impchat" if given and "IMPCHAT_DATA" not in os.environ else None


def open_app(data: Path | None = None, model: str | None = None) -> App:
    """Open the data folder, its history and the chosen model, which is loaded at its first use.

    Raises HistoryError and ModelError as `App.open`."""
    app = App.open(data or data_dir(), model)
    if app.bundle:
        app.run_with(app.bundle, tuned(PHONE, preferences.load(app.data)))
    return app


_shared: list[App] = []  # one per process: a page that is reloaded finds its running answers


async def main(page: ft.Page) -> None:
    """Flet's entry point, called for each page."""
    await start(page, shared_app)


def shared_app() -> App:
    if not _shared:
        _shared.append(open_app())
    return _shared[0]


async def start(
    page: ft.Page,
    get_app: Callable[[], App],
    language: str | None = None,
    server: Server | None = None,
    shares: bool = False,
) -> ChatScreen | None:
    """Show the app on `page`. `language` None: the device's. `server`: answers unless the user has chosen otherwise.
    `shares`: see `Shell`. Returns None if the app could not start; the page then shows why."""
    ft.context.disable_auto_update()
    page.title = "ImpChat"
    page.theme, page.dark_theme = theme.theme(False), theme.theme(True)
    if language is None:
        language = await _device_language(page)
    try:
        app = await asyncio.to_thread(get_app)
        shell = Shell(page, app, language, shares)
        current = OpenConversation(
            app, lambda: shell.preferences.sampling_of(app.sampling) if shell.preferences.sampling else None
        )
        navigator = Navigator(shell, current, server)
        await navigator.load()
        screen = ChatScreen(shell, current, navigator)
        lifecycle = Lifecycle(shell, screen, navigator)
        await lifecycle.show()
        return screen
    except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
        log_error("the app", exc)
        _show_failure(page, exc, language, lambda: start(page, get_app, language, server, shares))
        return None


async def _device_language(page: ft.Page) -> str:
    with contextlib.suppress(Exception):  # the app starts even if the language is unknown
        info = await asyncio.wait_for(page.get_device_info(), 3)
        return language_of(list(info.locales)) if info else "en"
    return "en"


def _show_failure(page: ft.Page, error: Exception, language: str, again: Handler) -> None:
    message = (
        error.sentence(language)
        if isinstance(error, ImpChatError)
        else say("mobile.mistake", language, kind=type(error).__name__)
    )

    retry = ft.FilledButton(say("mobile.again", language), on_click=guarded(again, lambda _: None))
    box = ft.Column(
        [ft.Icon(ft.Icons.ERROR_OUTLINE, size=40), ft.Text(message, text_align=ft.TextAlign.CENTER), retry],
        horizontal_alignment=ft.CrossAxisAlignment.CENTER,
        alignment=ft.MainAxisAlignment.CENTER,
        spacing=20,
    )
    page.views[:] = [ft.View([ft.SafeArea(ft.Container(box, padding=32, alignment=ft.Alignment.CENTER), expand=True)])]
    page.update()


class Lifecycle:
    """The lifecycle of the app: saves the draft, locks the app, frees memory, and opens links."""

    def __init__(self, shell: Shell, screen: ChatScreen, navigator: Navigator) -> None:
        self._shell = shell
        self._screen = screen
        self._navigator = navigator
        self._route = shell.page.route  # the route that opened the app, until it has been handled
        shell.page.session.store.set("lifecycle", self)
        self._is_disconnected = False
        self._hidden_at = 0.0  # seconds on the monotonic clock; 0: the app is visible
        shell.page.on_app_lifecycle_state_change = shell.on(self._state_changed)
        shell.page.on_route_change = shell.on(self._route_changed)
        shell.page.on_disconnect = shell.on(self._disconnected)
        shell.page.on_connect = shell.on(self._reconnected)
        shell.page.on_platform_brightness_change = shell.on(self._brightness_changed)

    @classmethod
    def of(cls, page: ft.Page) -> Lifecycle:
        """The Lifecycle of the app on this page."""
        lifecycle: Lifecycle = page.session.store.get("lifecycle")
        return lifecycle

    async def show(self) -> None:
        """Show the first screen, with the last conversation if it was used recently."""
        shell = self._shell
        if applock.is_set(shell.app.data):
            await shell.restart(LockScreen(shell, self._show_chat))
        else:
            await self._show_chat()
        self._watch = asyncio.get_running_loop().create_task(self._watch_memory())

    async def _show_chat(self) -> None:
        await self._shell.restart(self._screen)
        await self._screen.open(await asyncio.to_thread(self._recent_conversation))
        self._open_link()

    def _recent_conversation(self) -> str | None:
        history, uuid = self._shell.app.history, self._shell.preferences.conversation
        try:
            row = history.conversation(uuid, settings.OWNER)
        except HistoryError:
            return None
        age = datetime.now(UTC) - datetime.fromisoformat(row.updated_utc).replace(tzinfo=UTC)
        return None if row.deleted_utc or age.total_seconds() > settings.MOBILE_RETURN_S else uuid

    async def _state_changed(self, event: ft.AppLifecycleStateChangeEvent) -> None:
        if event.state in (ft.AppLifecycleState.HIDE, ft.AppLifecycleState.PAUSE, ft.AppLifecycleState.DETACH):
            self._hidden_at = self._hidden_at or time.monotonic()
            await self._screen.keep()
        elif event.state in (ft.AppLifecycleState.SHOW, ft.AppLifecycleState.RESUME):
            await self._resumed()

    async def _resumed(self) -> None:
        """The app is visible again: show what has changed, after the PIN if there is one."""
        away_s = time.monotonic() - self._hidden_at if self._hidden_at else 0
        self._hidden_at = 0.0
        shell = self._shell
        if isinstance(shell.top, LockScreen):
            return
        if away_s > settings.LOCK_AFTER_S and applock.is_set(shell.app.data):
            await shell.push(LockScreen(shell, self._unlocked))
        elif shell.top:
            await shell.top.shown()

    async def _unlocked(self) -> None:
        await self._shell.pop()
        self._open_link()

    async def _route_changed(self, event: ft.RouteChangeEvent) -> None:
        """The route has changed: a link was opened while the app runs, or in a browser, the user went back or forward.
        The event of a link may arrive before the event that the app is visible again."""
        if self._shell.page.web:
            await self._shell.route_changed(event.route)
            return
        self._route = event.route
        await self._resumed()
        if not isinstance(self._shell.top, LockScreen):
            self._open_link()

    def _open_link(self) -> None:
        """Handle the link that opened the app. Ignored in a browser, where any site could link to the app."""
        route, self._route = self._route, ""
        if self._shell.page.web:
            return
        try:
            link = pairing_link(route)
        except RequestError as error:
            self._shell.fail(error)
        else:
            if link:
                self._shell.start(self._navigator.connect(link))

    async def _brightness_changed(self) -> None:
        if self._shell.preferences.theme == "system":
            await self._shell.redraw()

    async def _reconnected(self) -> None:
        """A browser has reconnected: show the answers that ended meanwhile, and follow a running one."""
        if self._is_disconnected:
            self._is_disconnected = False
            self._watch = asyncio.get_running_loop().create_task(self._watch_memory())
            await self._screen.open(self._screen.current.conversation)

    async def _disconnected(self) -> None:
        self._is_disconnected = True
        await self._screen.keep()
        self._screen.current.close()
        self._watch.cancel()

    async def _watch_memory(self) -> None:
        """Check the free memory at intervals, because Flet does not report the system's memory warnings."""
        while True:
            await asyncio.sleep(settings.MOBILE_MEMORY_CHECK_S)
            await self.free_memory(await asyncio.to_thread(machine.memory))

    async def free_memory(self, memory: machine.Memory | None) -> None:
        """Unload the model if memory is low and the model is idle. The next question loads it again."""
        app = self._shell.app
        if self._shell.shares:
            return
        if memory and memory.free < settings.MOBILE_MEMORY_LOW_BYTES and app.loaded and app.idle:
            await asyncio.to_thread(app.unload)
            self._shell.notify(self._shell.say("mobile.unloaded"))
