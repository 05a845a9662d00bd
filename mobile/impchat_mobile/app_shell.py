"""What all screens share: the page, the stack of screens, words, notices and dialogs.

In: the page and the open App. Out: `Shell`, which screens are given. A screen that cannot be drawn is replaced by one
that says so; the others stay as they are.
This file does not know any screen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import flet as ft

from impchat import preferences as chosen
from impchat.app import App
from impchat.errors import ImpChatError
from impchat.preferences import Preferences
from impchat.texts import LANGUAGES, say
from impchat_mobile import theme
from impchat_mobile.guard import Handler, guarded, log, note

MARK = "/screen"  # the address in a browser while something stands above the first screen
_PATIENCE_S = 1.0  # with a dialog that is to go: its closing takes a quarter of this
_ABOVE = 8  # pixels between a notice and the composer
_NOTICE = 100  # and those that it takes itself


class Screen:
    """One screen. Its parts are made in `build`, anew for another theme or language."""

    def build(self) -> ft.View:
        return ft.View()

    async def shown(self) -> None:
        """It is on top, for the first time or again."""

    def left(self) -> None:
        """It is gone."""

    def resized(self) -> None:
        """The page has another size."""

    def failed(self, sentence: str) -> bool:
        """Something went wrong while it is on top. Whether it says so itself."""
        return False


class Shell:
    """The page as screens see it. Everything is called on the event loop."""

    def __init__(self, page: ft.Page, app: App, language: str, shares: bool = False) -> None:
        """`language`: the system's; the person may have chosen another. `shares`: another front end answers with the
        same engine, so that how it is run is not to be chosen here."""
        self.page = page
        self.app = app
        self.shares = shares
        self.preferences = chosen.load(app.data)
        self.above = 120.0  # pixels that notices leave free: the composer, to which a person may return meanwhile
        self._system_language = language
        self._screens: list[tuple[Screen, ft.View]] = []
        self._is_marked = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.clipboard, self.share, self.haptics = ft.Clipboard(), ft.Share(), ft.HapticFeedback()
        self.picker, self.speaker = ft.FilePicker(), ft.SemanticsService()
        self.links = ft.UrlLauncher()
        page.on_view_pop = self.on(self._popped)
        page.on_resize = self.on(self._resized)
        self.wear()

    # Words

    @property
    def language(self) -> str:
        return self.preferences.language or self._system_language

    def say(self, key: str, **values: Any) -> str:
        on_computer = f"{key}_on_computer"
        return say(on_computer if self.page.web and on_computer in LANGUAGES["en"] else key, self.language, **values)

    def sentence(self, error: Exception) -> str:
        """What a person is told of an error."""
        if isinstance(error, ImpChatError):
            return error.sentence(self.language)
        return self.say("mobile.mistake", kind=type(error).__name__)

    # Preferences

    async def prefer(self, **changes: Any) -> None:
        """Change preferences and keep them. Raises HistoryError "data.unwritable"."""
        self.preferences = replace(self.preferences, **changes)
        await asyncio.to_thread(chosen.save, self.app.data, self.preferences)

    @property
    def wanted(self) -> Preferences | None:
        """How the model is to be run; None: that is another front end's to say."""
        return None if self.shares else self.preferences

    def wear(self) -> None:
        """Put on the chosen theme and language."""
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
        """Whether there is room for a list next to the chat."""
        return (self.page.width or 0) >= theme.WIDE and (self.page.height or 0) >= theme.TALL

    # Handlers and work behind the screen

    def on(self, handler: Handler) -> Callable[[object], Awaitable[None]]:
        """`handler` for Flet; what it raises is told."""
        return guarded(handler, self.fail)

    def start(self, work: Awaitable[None]) -> None:
        """Let `work` go on behind the screen; what it raises is told."""

        async def run() -> None:
            try:
                await work
            except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
                note("work", exc)
                self.fail(exc)

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def fail(self, error: Exception) -> None:
        """Tell an error, whatever state the page is in."""
        try:
            sentence = self.sentence(error)
            if not (self.top and self.top.failed(sentence)):
                self.tell(sentence, error=True)
        except Exception as exc:  # noqa: BLE001 - there is nobody left to tell
            note("a notice", exc)

    def draw(self, *controls: ft.Control) -> None:
        """Bring these to the screen; those that are on none are drawn when they come to one."""
        for control in controls:
            if is_mounted(control):
                control.update()

    # Screens

    @property
    def top(self) -> Screen | None:
        return self._screens[-1][0] if self._screens else None

    async def push(self, screen: Screen) -> None:
        """Show `screen` above the others."""
        try:
            view = screen.build()
        except Exception as exc:  # noqa: BLE001 - the outer edge of the front end
            note("a screen", exc)
            screen, view = Screen(), self._broken(exc)
        view.route = "/" + "/".join(type(s).__name__.lower() for s, _ in [*self._screens, (screen, view)])
        self._screens.append((screen, view))
        await self._show()
        if len(self._screens) > 1:
            self._mark()
        await screen.shown()

    async def pop(self) -> None:
        """Back to the screen below."""
        if len(self._screens) > 1:
            self._screens.pop()[0].left()
            await self._show()
            await self._screens[-1][0].shown()

    async def home(self) -> None:
        """Back to the first screen."""
        while len(self._screens) > 1:
            self._screens.pop()[0].left()
        await self._show()

    async def restart(self, screen: Screen) -> None:
        """`screen` alone, in place of all that are shown."""
        while self._screens:
            self._screens.pop()[0].left()
        await self.push(screen)

    async def redraw(self) -> None:
        """All screens anew, in another theme or language."""
        self.wear()
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
        await self._clear()
        self.page.views[:] = [view for _, view in self._screens]
        self.page.update()

    async def _clear(self) -> None:
        """Close what stands above the screens; returns when it has gone. Flutter forgets to take away a dialog that a
        screen covers while it goes, and shows it again after that screen."""
        end = asyncio.get_running_loop().time() + _PATIENCE_S
        while (above := self._dialogs()) and asyncio.get_running_loop().time() < end:
            for dialog in above:
                self.close(dialog)
            await asyncio.sleep(0.02)

    def _dialogs(self) -> list[ft.DialogControl]:
        """The sheets and dialogs that have not gone yet."""
        return [dialog for dialog in self.page._dialogs.controls if not isinstance(dialog, ft.SnackBar)]

    async def _popped(self) -> None:
        await self.pop()

    # The browser's own button to go back

    def _mark(self) -> None:
        """Give it an entry to go back from: without one it leaves the app."""
        if self.page.web and not self._is_marked:
            self._is_marked = True
            self.start(self.page.push_route(MARK))

    async def went(self, route: str) -> None:
        """The browser shows another address: where it is not ours, the person went back."""
        if route == MARK:
            return
        self._is_marked = False
        if any(dialog.open for dialog in self._dialogs()):
            await self._clear()
        elif len(self._screens) > 1 and self._screens[-1][1].can_pop:
            await self.pop()
        if len(self._screens) > 1:
            self._mark()

    def _resized(self) -> None:
        for screen, _ in self._screens:
            screen.resized()

    def _broken(self, error: Exception) -> ft.View:
        words = ft.Text(self.sentence(error), text_align=ft.TextAlign.CENTER)
        return ft.View([ft.SafeArea(ft.Container(words, padding=32))], appbar=ft.AppBar())

    # Telling and asking

    def tell(
        self, text: str, undo: Handler | None = None, error: bool = False, offer: tuple[str, Handler] | None = None
    ) -> None:
        """Say one sentence at the lower edge; with `undo`, a way back; with an `offer`, its name and what it does."""
        offer = (self.say("mobile.undo"), undo) if undo else offer
        above = min(self.above + _ABOVE, max(0, (self.page.height or 800) - _NOTICE))
        words = ft.Text(text, color=ft.Colors.ON_ERROR_CONTAINER if error else ft.Colors.ON_INVERSE_SURFACE)
        bar = ft.SnackBar(
            ft.Semantics(live_region=True, content=words),
            behavior=ft.SnackBarBehavior.FLOATING,
            margin=ft.Margin.only(left=16, right=16, bottom=above),
            action=ft.SnackBarAction(offer[0], on_click=self.on(offer[1])) if offer else None,
            show_close_icon=error,
            duration=ft.Duration(seconds=10 if error else 6 if offer else 3),
            persist=False,
            shape=ft.RoundedRectangleBorder(radius=14),
            bgcolor=ft.Colors.ERROR_CONTAINER if error else None,
            close_icon_color=ft.Colors.ON_ERROR_CONTAINER if error else None,
        )
        self._close(ft.SnackBar)
        self.page.show_dialog(bar)

    def ask(self, title: str, content: ft.Control, do: str, done: Handler, danger: bool = False) -> ft.AlertDialog:
        """A question with a way out; `done` is called when the person agrees."""

        async def agreed() -> None:
            self.close(dialog)
            await _outcome(done)

        style = ft.ButtonStyle(bgcolor=ft.Colors.ERROR, color=ft.Colors.ON_ERROR) if danger else None
        dialog = ft.AlertDialog(
            title=ft.Text(title, size=20),
            content=content,
            scrollable=True,
            actions=[
                ft.TextButton(self.say("mobile.cancel"), on_click=self.on(lambda: self.close(dialog))),
                ft.FilledButton(do, on_click=self.on(agreed), style=style),
            ],
        )
        self._open(dialog)
        return dialog

    def form(self, title: str, content: Sequence[ft.Control], do: str, done: Handler) -> Handler:
        """Ask for what is typed into `content`; back comes what agreeing does. The dialog stays, with all that was
        typed, while `done` works, where it raises an ImpChatError, which is told there, and where it returns False."""
        problem = ft.Text("", size=14, color=ft.Colors.ERROR)
        said = ft.Semantics(live_region=True, content=problem, visible=False)
        busy = ft.ProgressBar(visible=False, border_radius=4)
        work: asyncio.Task[object] | None = None

        async def agreed() -> None:
            nonlocal work
            if work:
                return
            said.visible, busy.visible, agree.disabled = False, True, True
            self.draw(dialog)
            work = asyncio.get_running_loop().create_task(_outcome(done))
            try:
                if await work is not False:
                    self.close(dialog)
            except ImpChatError as error:
                problem.value, said.visible = self.sentence(error), True
            except asyncio.CancelledError:  # it was closed meanwhile
                return
            finally:
                work, busy.visible, agree.disabled = None, False, False
            self.draw(dialog)

        def closed() -> None:
            if work:
                work.cancel()

        agree = ft.FilledButton(do, on_click=self.on(agreed))
        dialog = ft.AlertDialog(
            title=ft.Text(title, size=20),
            content=ft.Column([*content, said, busy], tight=True, spacing=12),
            scrollable=True,
            modal=True,  # a tap beside it would lose what was typed
            actions=[
                ft.TextButton(self.say("mobile.cancel"), on_click=self.on(lambda: self.close(dialog))),
                agree,
            ],
            on_dismiss=self.on(closed),
        )
        self._open(dialog)
        return agreed

    def ask_text(self, title: str, label: str, value: str, do: str, done: Callable[[str], object]) -> None:
        """Ask for a line of text."""
        field = ft.TextField(value=value, label=label, autofocus=True)
        field.on_submit = self.on(self.form(title, [field], do, lambda: done(field.value or "")))

    def sheet(self, *content: ft.Control) -> ft.BottomSheet:
        """A list of things to do, from the lower edge."""
        stretch = ft.CrossAxisAlignment.STRETCH
        column = ft.Column(list(content), tight=True, spacing=0, horizontal_alignment=stretch)
        inner = ft.SafeArea(ft.Container(column, padding=ft.Padding.only(bottom=12)))
        sheet = ft.BottomSheet(inner, show_drag_handle=True, scrollable=True, bgcolor=ft.Colors.SURFACE_CONTAINER_LOW)
        self._open(sheet)
        return sheet

    def _open(self, dialog: ft.DialogControl) -> None:
        self.page.show_dialog(dialog)
        self._mark()

    def action(self, icon: ft.IconData, text: str, do: Handler, danger: bool = False) -> ft.ListTile:
        """One thing to do in a sheet, which closes itself."""

        async def chosen_one() -> None:
            self._close(ft.BottomSheet)
            await _outcome(do)

        colour = ft.Colors.ERROR if danger else None
        return ft.ListTile(
            leading=ft.Icon(icon, color=colour or theme.FAINT),
            title=ft.Text(text, color=colour),
            on_click=self.on(chosen_one),
        )

    def close(self, dialog: ft.DialogControl) -> None:
        if dialog.open:
            dialog.open = False
            dialog.update()

    def _close(self, kind: type[ft.DialogControl]) -> None:
        for dialog in list(self.page._dialogs.controls):
            if isinstance(dialog, kind):
                self.close(dialog)

    async def read_aloud(self, text: str, live: bool = False) -> None:
        """Let the device's screen reader say `text`; where none is on, tell how to get one. `live`: the text stands
        in a live region too, which a reader says by itself where the platform wants no announcements (Android)."""
        try:
            features = await self.speaker.get_accessibility_features()
            if not features.accessible_navigation:
                self.tell(self.say("mobile.no_reader"))
            elif features.supports_announcements or not live:
                await self.speaker.announce_message(text)
        except Exception as exc:  # noqa: BLE001 - a platform that cannot be asked has no reader either
            log.debug("no screen reader answers: %s", type(exc).__name__)
            self.tell(self.say("mobile.no_reader"))

    async def copy(self, text: str) -> None:
        await self.clipboard.set(text)
        self.tell(self.say("mobile.copied"))


async def _outcome(do: Handler) -> object:
    """What `do`, plain or a coroutine, returns."""
    outcome = do()
    return await outcome if asyncio.iscoroutine(outcome) else outcome


def language_of(locales: Sequence[ft.Locale]) -> str:
    """The first language of the device that there are texts for."""
    return next((locale.language_code for locale in locales if locale.language_code in LANGUAGES), "en")


def is_mounted(control: ft.Control) -> bool:
    """Whether it is on the page."""
    try:
        return control.page is not None
    except RuntimeError:
        return False
