"""What all screens share: the page, the stack of screens, texts, notices and dialogs.

In: the page and the open App. Out: a `Shell`, which every screen gets. If a screen cannot be built, an error screen is
shown in its place; the other screens are not affected.
This file does not know any particular screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import flet as ft

from impchat import preferences
from impchat.app import App
from impchat.errors import ImpChatError
from impchat.preferences import Preferences
from impchat.texts import LANGUAGES, say
from impchat_mobile import theme
from impchat_mobile.guard import Handler, guarded, invoke, log, log_error

SCREEN_ROUTE = "/screen"  # the route in a browser while a screen or dialog is above the first screen
_CLOSE_TIMEOUT_S = 1.0  # maximum wait until a dialog has closed, which takes a quarter of this
_NOTICE_GAP = 8  # pixels between a notice and the composer
_NOTICE_HEIGHT = 100  # height of a notice in pixels


class Screen:
    """One screen. `build` creates its controls, and is called again after a change of theme or language."""

    def build(self) -> ft.View:
        return ft.View()

    async def shown(self) -> None:
        """Called when the screen is on top, for the first time or again."""

    def left(self) -> None:
        """Called when the screen has been removed."""

    def resized(self) -> None:
        """Called when the size of the page has changed."""

    def failed(self, sentence: str) -> bool:
        """Called with an error message while the screen is on top. Returns whether it shows the message itself."""
        return False


class Shell:
    """The page as screens see it. All methods are called on the event loop."""

    def __init__(self, page: ft.Page, app: App, language: str, shares: bool = False) -> None:
        """`language`: the system's; the user's preference overrides it. `shares`: another front end uses the same
        engine, so the user cannot change here how the model is run."""
        self.page = page
        self.app = app
        self.shares = shares
        self.preferences = preferences.load(app.data)
        self.notice_offset = 120.0  # pixels kept free below a notice: the composer, to which the user may return
        self._system_language = language
        self._screens: list[tuple[Screen, ft.View]] = []
        self._has_history_entry = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.clipboard, self.share, self.haptics = ft.Clipboard(), ft.Share(), ft.HapticFeedback()
        self.picker, self.speaker = ft.FilePicker(), ft.SemanticsService()
        self.launcher = ft.UrlLauncher()
        page.on_view_pop = self.on(self._view_popped)
        page.on_resize = self.on(self._resized)
        self.apply_theme()

    # Texts

    @property
    def language(self) -> str:
        return self.preferences.language or self._system_language

    def say(self, key: str, **values: Any) -> str:
        on_computer = f"{key}_on_computer"
        return say(on_computer if self.page.web and on_computer in LANGUAGES["en"] else key, self.language, **values)

    def sentence(self, error: Exception) -> str:
        """The sentence that the user is shown for `error`."""
        if isinstance(error, ImpChatError):
            return error.sentence(self.language)
        return self.say("mobile.mistake", kind=type(error).__name__)

    # Preferences

    async def prefer(self, **changes: Any) -> None:
        """Change preferences and save them. Raises HistoryError "data.unwritable"."""
        self.preferences = replace(self.preferences, **changes)
        await asyncio.to_thread(preferences.save, self.app.data, self.preferences)

    @property
    def model_preferences(self) -> Preferences | None:
        """How the user wants the model to be run; None: another front end decides."""
        return None if self.shares else self.preferences

    def apply_theme(self) -> None:
        """Apply the chosen theme and language to the page."""
        self.page.theme, self.page.dark_theme = theme.theme(False), theme.theme(True)
        self.page.theme_mode = ft.ThemeMode(self.preferences.theme)
        locales = [ft.Locale("en", "GB"), ft.Locale("zh", "CN")]
        self.page.locale_configuration = ft.LocaleConfiguration(locales, locales[self.language == "zh"])

    @property
    def dark(self) -> bool:
        if self.preferences.theme == "system":
            return self.page.platform_brightness == ft.Brightness.DARK
        return self.preferences.theme == "dark"

    @property
    def wide(self) -> bool:
        """Whether there is room for the list of chats next to the chat."""
        return (self.page.width or 0) >= theme.WIDE_WIDTH and (self.page.height or 0) >= theme.WIDE_HEIGHT

    # Handlers and background work

    def on(self, handler: Handler) -> Callable[[object], Awaitable[None]]:
        """`handler` for Flet; an exception in it is shown to the user."""
        return guarded(handler, self.fail)

    def start(self, work: Awaitable[None]) -> None:
        """Run `work` in the background; an exception in it is shown to the user."""

        async def run() -> None:
            try:
                await work
            except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
                log_error("work", exc)
                self.fail(exc)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail(self, error: Exception) -> None:
        """Show an error to the user. Never raises, whatever state the page is in."""
        try:
            sentence = self.sentence(error)
            if not (self.top and self.top.failed(sentence)):
                self.notify(sentence, error=True)
        except Exception as exc:  # noqa: BLE001 - if the page cannot show it, it is only logged
            log_error("a notice", exc)

    def draw(self, *controls: ft.Control) -> None:
        """Update these controls on the page. One that is not mounted is skipped: it is drawn when it is mounted."""
        for control in controls:
            if is_mounted(control):
                control.update()

    # Screens

    @property
    def top(self) -> Screen | None:
        return self._screens[-1][0] if self._screens else None

    async def push(self, screen: Screen) -> None:
        """Show `screen` on top of the others."""
        try:
            view = screen.build()
        except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
            log_error("a screen", exc)
            screen, view = Screen(), self._error_view(exc)
        view.route = "/" + "/".join(type(s).__name__.lower() for s, _ in [*self._screens, (screen, view)])
        self._screens.append((screen, view))
        await self._show()
        if len(self._screens) > 1:
            self._push_history_entry()
        await screen.shown()

    async def pop(self) -> None:
        """Return to the screen below."""
        if len(self._screens) > 1:
            self._screens.pop()[0].left()
            await self._show()
            await self._screens[-1][0].shown()

    async def home(self) -> None:
        """Return to the first screen."""
        while len(self._screens) > 1:
            self._screens.pop()[0].left()
        await self._show()

    async def restart(self, screen: Screen) -> None:
        """Replace all screens by `screen`."""
        while self._screens:
            self._screens.pop()[0].left()
        await self.push(screen)

    async def redraw(self) -> None:
        """Build all screens again, after a change of theme or language."""
        self.apply_theme()
        screens = [screen for screen, _ in self._screens]
        self._screens = []
        for screen in screens:
            view = screen.build()
            view.route = f"/{len(self._screens)}/{self.language}"
            self._screens.append((screen, view))
        await self._show()
        for screen in screens:
            await screen.shown()

    async def _show(self) -> None:
        await self._close_dialogs()
        self.page.views[:] = [view for _, view in self._screens]
        self.page.update()

    async def _close_dialogs(self) -> None:
        """Close all dialogs and sheets, and return once they are gone. If a screen covers a dialog that is closing,
        Flutter does not remove the dialog and shows it again after that screen."""
        end = asyncio.get_running_loop().time() + _CLOSE_TIMEOUT_S
        while (open_dialogs := self._dialogs()) and asyncio.get_running_loop().time() < end:
            for dialog in open_dialogs:
                self.close(dialog)
            await asyncio.sleep(0.02)

    def _dialogs(self) -> list[ft.DialogControl]:
        """The sheets and dialogs that are open or still closing."""
        return [dialog for dialog in self.page._dialogs.controls if not isinstance(dialog, ft.SnackBar)]

    async def _view_popped(self) -> None:
        await self.pop()

    # The browser's back button

    def _push_history_entry(self) -> None:
        """Add a history entry for the back button to return from. Without one, the button leaves the app."""
        if self.page.web and not self._has_history_entry:
            self._has_history_entry = True
            self.start(self.page.push_route(SCREEN_ROUTE))

    async def route_changed(self, route: str) -> None:
        """The browser's address has changed. If it is not SCREEN_ROUTE, the user has gone back."""
        if route == SCREEN_ROUTE:
            return
        self._has_history_entry = False
        if any(dialog.open for dialog in self._dialogs()):
            await self._close_dialogs()
        elif len(self._screens) > 1 and self._screens[-1][1].can_pop:
            await self.pop()
        if len(self._screens) > 1:
            self._push_history_entry()

    def _resized(self) -> None:
        for screen, _ in self._screens:
            screen.resized()

    def _error_view(self, error: Exception) -> ft.View:
        message = ft.Text(self.sentence(error), text_align=ft.TextAlign.CENTER)
        return ft.View([ft.SafeArea(ft.Container(message, padding=32))], appbar=ft.AppBar())

    # Notices and dialogs

    def notify(
        self, text: str, undo: Handler | None = None, error: bool = False, offer: tuple[str, Handler] | None = None
    ) -> None:
        """Show a sentence in a snack bar. `undo`: action of an Undo button. `offer`: label and action of a button."""
        offer = (self.say("mobile.undo"), undo) if undo else offer
        bottom = min(self.notice_offset + _NOTICE_GAP, max(0, (self.page.height or 800) - _NOTICE_HEIGHT))
        message = ft.Text(text, color=ft.Colors.ON_ERROR_CONTAINER if error else ft.Colors.ON_INVERSE_SURFACE)
        bar = ft.SnackBar(
            ft.Semantics(live_region=True, content=message),
            behavior=ft.SnackBarBehavior.FLOATING,
            margin=ft.Margin.only(left=16, right=16, bottom=bottom),
            action=ft.SnackBarAction(offer[0], on_click=self.on(offer[1])) if offer else None,
            show_close_icon=error,
            duration=ft.Duration(seconds=10 if error else 6 if offer else 3),
            persist=False,
            shape=ft.RoundedRectangleBorder(radius=14),
            bgcolor=ft.Colors.ERROR_CONTAINER if error else None,
            close_icon_color=ft.Colors.ON_ERROR_CONTAINER if error else None,
        )
        self._close_all(ft.SnackBar)
        self.page.show_dialog(bar)

    def confirm(
        self, title: str, content: ft.Control, button: str, done: Handler, danger: bool = False
    ) -> ft.AlertDialog:
        """Open a dialog with the buttons Cancel and `button`; `done` is called when the user taps the latter."""

        async def confirmed() -> None:
            self.close(dialog)
            await invoke(done)

        style = ft.ButtonStyle(bgcolor=ft.Colors.ERROR, color=ft.Colors.ON_ERROR) if danger else None
        dialog = ft.AlertDialog(
            title=ft.Text(title, size=20),
            content=content,
            scrollable=True,
            actions=[
                ft.TextButton(self.say("mobile.cancel"), on_click=self.on(lambda: self.close(dialog))),
                ft.FilledButton(button, on_click=self.on(confirmed), style=style),
            ],
        )
        self._show_dialog(dialog)
        return dialog

    def form(self, title: str, content: Sequence[ft.Control], button: str, done: Handler) -> Handler:
        """Open a dialog with input fields, and return the handler of its confirm button, which calls `done`.

        The dialog stays open, with its input, while `done` runs, and if `done` returns False or raises an ImpChatError,
        which is shown in the dialog."""
        problem = ft.Text("", size=14, color=ft.Colors.ERROR)
        alert = ft.Semantics(live_region=True, content=problem, visible=False)
        busy = ft.ProgressBar(visible=False, border_radius=4)
        work: asyncio.Task[object] | None = None

        async def confirmed() -> None:
            nonlocal work
            if work:
                return
            alert.visible, busy.visible, confirm_button.disabled = False, True, True
            self.draw(dialog)
            work = asyncio.get_running_loop().create_task(invoke(done))
            try:
                if await work is not False:
                    self.close(dialog)
            except ImpChatError as error:
                problem.value, alert.visible = self.sentence(error), True
            except asyncio.CancelledError:  # the dialog was closed
                return
            finally:
                work, busy.visible, confirm_button.disabled = None, False, False
            self.draw(dialog)

        def closed() -> None:
            if work:
                work.cancel()

        confirm_button = ft.FilledButton(button, on_click=self.on(confirmed))
        dialog = ft.AlertDialog(
            title=ft.Text(title, size=20),
            content=ft.Column([*content, alert, busy], tight=True, spacing=12),
            scrollable=True,
            modal=True,  # otherwise a tap outside would lose the input
            actions=[
                ft.TextButton(self.say("mobile.cancel"), on_click=self.on(lambda: self.close(dialog))),
                confirm_button,
            ],
            on_dismiss=self.on(closed),
        )
        self._show_dialog(dialog)
        return confirmed

    def ask_text(self, title: str, label: str, value: str, button: str, done: Callable[[str], object]) -> None:
        """Open a dialog for a line of text, which is passed to `done`."""
        field = ft.TextField(value=value, label=label, autofocus=True)
        field.on_submit = self.on(self.form(title, [field], button, lambda: done(field.value or "")))

    def sheet(self, *content: ft.Control) -> ft.BottomSheet:
        """Open a bottom sheet, for instance with a list of actions."""
        stretch = ft.CrossAxisAlignment.STRETCH
        column = ft.Column(list(content), tight=True, spacing=0, horizontal_alignment=stretch)
        inner = ft.SafeArea(ft.Container(column, padding=ft.Padding.only(bottom=12)))
        sheet = ft.BottomSheet(inner, show_drag_handle=True, scrollable=True, bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._show_dialog(sheet)
        return sheet

    def _show_dialog(self, dialog: ft.DialogControl) -> None:
        self.page.show_dialog(dialog)
        self._push_history_entry()

    def action(self, icon: ft.IconData, text: str, do: Handler, danger: bool = False) -> ft.ListTile:
        """An action in a sheet. Tapping it closes the sheet and calls `do`."""

        async def tapped() -> None:
            self._close_all(ft.BottomSheet)
            await invoke(do)

        colour = ft.Colors.ERROR if danger else None
        return ft.ListTile(
            leading=ft.Icon(icon, color=colour or theme.MUTED),
            title=ft.Text(text, color=colour),
            on_click=self.on(tapped),
        )

    def close(self, dialog: ft.DialogControl) -> None:
        if dialog.open:
            dialog.open = False
            dialog.update()

    def _close_all(self, kind: type[ft.DialogControl]) -> None:
        for dialog in list(self.page._dialogs.controls):
            if isinstance(dialog, kind):
                self.close(dialog)

    async def read_aloud(self, text: str, live: bool = False) -> None:
        """Have the device's screen reader read `text`; if none is active, a notice says how to turn one on. `live`:
        the text is also in a live region, which is read automatically on platforms without announcements (Android)."""
        try:
            features = await self.speaker.get_accessibility_features()
            if not features.accessible_navigation:
                self.notify(self.say("mobile.no_reader"))
            elif features.supports_announcements or not live:
                await self.speaker.announce_message(text)
        except Exception as exc:  # noqa: BLE001 - a platform that does not report its features has no screen reader
            log.debug("no screen reader answers: %s", type(exc).__name__)
            self.notify(self.say("mobile.no_reader"))

    async def copy(self, text: str) -> None:
        await self.clipboard.set(text)
        self.notify(self.say("mobile.copied"))


def language_of(locales: Sequence[ft.Locale]) -> str:
    """The first of the device's languages that ImpChat has texts for; "en" if there is none."""
    return next((locale.language_code for locale in locales if locale.language_code in LANGUAGES), "en")


def is_mounted(control: ft.Control) -> bool:
    """Whether `control` is on the page."""
    try:
        return control.page is not None
    except RuntimeError:
        return False
