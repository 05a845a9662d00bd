"""The app without a browser: Flet's real session, with a connection that packs every message as the real one does.

Packing takes the snapshots with which the next update is compared.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import flet as ft
import msgpack
from flet.controls.base_control import BaseControl
from flet.controls.context import _context_page
from flet.messaging.connection import Connection
from flet.messaging.protocol import Message, MessageAction, configure_encode_object_for_msgpack
from flet.messaging.session import Session
from flet.pubsub.pubsub_hub import PubSubHub

SECONDS = 120.0
C = TypeVar("C", bound=BaseControl)
WRAPPERS = (ft.Semantics, ft.SafeArea, ft.InteractiveViewer, ft.SnackBar, ft.BottomSheet)  # shown in red if empty


def route(link: str) -> str:
    """Convert a link as Flet does when it opens the app: it drops the host."""
    return "/" + link.removeprefix("impchat://pair")


class FakeConnection(Connection):
    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__()
        self.page_url = "dartbridge://1"
        self.loop = asyncio.get_running_loop()
        self.executor = ThreadPoolExecutor(2)
        self.pubsubhub = PubSubHub(loop=self.loop, executor=self.executor)
        self.answers = answers  # method of the client -> its result
        self.calls: list[tuple[str, Any]] = []
        self.crashes: list[str] = []  # errors that would have replaced the page
        self.updates = 0
        self._gone: set[int] = set()  # ids of dismissed dialogs
        self.session: Session

    def send_message(self, message: Message) -> None:
        body: Any = message.body
        msgpack.packb([message.action, body], default=configure_encode_object_for_msgpack(BaseControl))
        if message.action == MessageAction.PATCH_CONTROL:
            self.updates += 1
            self.loop.call_soon(self._dismiss)
        elif message.action == MessageAction.SESSION_CRASHED:
            self.crashes.append(body.message)
        elif message.action == MessageAction.INVOKE_METHOD:
            self.calls.append((body.name, body.args))
            result, error = self.answers.get(body.name), None
            if isinstance(result, Exception):
                result, error = None, str(result)
            self.loop.call_soon(self.session.handle_invoke_method_results, body.control_id, body.call_id, result, error)

    def _dismiss(self) -> None:
        """Report closed dialogs as dismissed, as Flutter does."""
        for dialog in self.session.page._dialogs.controls:
            if not dialog.open and dialog._i not in self._gone:
                self._gone.add(dialog._i)
                self._telling = self.loop.create_task(self.session.dispatch_event(dialog._i, "dismiss", None))

    def dispose(self) -> None:
        self.executor.shutdown(wait=False)


class Phone:
    """A page of 412 x 915 on Android, with methods for a user's actions."""

    def __init__(
        self, answers: dict[str, Any] | None = None, width: int = 412, height: int = 915, link: str = ""
    ) -> None:
        self.connection = FakeConnection(answers or {})
        self.session = self.connection.session = Session(self.connection)
        self.page = self.session.page
        facts = {"platform": "android", "width": width, "height": height, "web": False, "route": route(link)}
        self.session.apply_page_patch(facts)
        _context_page.set(self.page)
        ft.context.reset_auto_update()
        self.connection.send_message(Message(MessageAction.REGISTER_CLIENT, {"p": self.session.get_page_patch()}))

    # Reading the screen

    def walk(self) -> Iterator[BaseControl]:
        """Every visible control of the top screen and of open dialogs."""
        seen: set[int] = set()

        def visit(node: Any) -> Iterator[BaseControl]:
            if isinstance(node, (list, tuple)):
                for item in node:
                    yield from visit(item)
                return
            if not dataclasses.is_dataclass(node) or isinstance(node, type) or id(node) in seen:
                return
            seen.add(id(node))
            if isinstance(node, BaseControl):
                if getattr(node, "visible", True) is False or getattr(node, "open", True) is False:
                    return
                yield node
            for field in dataclasses.fields(node):
                if not field.metadata.get("skip") and field.name != "_parent" and not field.name.startswith("__"):
                    value = getattr(node, field.name, None)
                    if isinstance(value, (list, tuple)) or dataclasses.is_dataclass(value):
                        yield from visit(value)

        yield from visit([self.page.views[-1], self.page._dialogs])

    def all(self, kind: type[C], **facts: Any) -> list[C]:
        return [
            control
            for control in self.walk()
            if isinstance(control, kind) and all(getattr(control, name, None) == value for name, value in facts.items())
        ]

    def one(self, kind: type[C], **facts: Any) -> C:
        found = self.all(kind, **facts)
        assert len(found) == 1, f"{len(found)} of {kind.__name__} {facts} in: {self.words()}"
        return found[0]

    def words(self) -> str:
        """All text that is visible or readable by a screen reader."""
        found = []
        for control in self.walk():
            for name in ("value", "semantics_label", "tooltip", "label", "title", "content", "text"):
                value = getattr(control, name, None)
                if isinstance(value, str) and value:
                    found.append(value)
        return "\n".join(found)

    # Actions

    async def fire(self, control: BaseControl, event: str, data: Any = None) -> None:
        await self.session.dispatch_event(control._i, event, data)
        self.check()

    def check(self) -> None:
        """Check that no control shows an error of Flet."""
        assert self.connection.crashes == []
        hollow = [wrapper for wrapper in self.walk() if isinstance(wrapper, WRAPPERS) and not _is_seen(wrapper.content)]
        assert hollow == []

    async def tap(self, name: str) -> None:
        """Tap the control with this name: a tooltip, or a text in something that can be tapped."""
        await self.fire(self.named(name), "click")

    def named(self, name: str) -> BaseControl:
        for control in self.walk():
            if getattr(control, "on_click", None) and (
                getattr(control, "tooltip", None) == name or name in _texts(control)
            ):
                assert not getattr(control, "disabled", False), f"{name} cannot be tapped now"
                return control
        raise AssertionError(f"there is no {name} to tap in: {self.words()}")

    async def type(self, label: str, text: str) -> None:
        field = self.one(ft.TextField, label=label)
        self.session.apply_patch(field._i, {"value": text})
        await self.fire(field, "change", text)

    async def open_link(self, link: str) -> None:
        """Open a pairing link from another app while this one runs."""
        await self.fire(self.page, "route_change", {"route": route(link)})

    async def until(self, true: Callable[[], Any], what: str = "") -> Any:
        """Wait until `true` returns something true, and return it."""
        end = asyncio.get_running_loop().time() + SECONDS
        while not (found := true()):
            assert asyncio.get_running_loop().time() < end, f"{what} never came: {self.words()}"
            await asyncio.sleep(0.02)
        self.check()
        return found

    async def until_words(self, text: str) -> None:
        await self.until(lambda: text in self.words(), text)


def _is_seen(content: Any) -> bool:
    return isinstance(content, str) or (content is not None and content.visible)


def _texts(control: BaseControl) -> list[str]:
    """The texts on a control, a few levels deep."""
    found: list[str] = []

    def visit(node: Any, depth: int) -> None:
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            for item in node:
                visit(item, depth)
        elif isinstance(node, BaseControl) and depth:
            for name in ("value", "content", "title", "controls", "semantics_label", "text", "label"):
                visit(getattr(node, name, None), depth - 1)

    for name in ("content", "title", "text", "controls"):
        visit(getattr(control, name, None), 3)
    return found
