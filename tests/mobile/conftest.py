"""Fixtures of the app's tests: a data folder, an App with the real demo model, a phone without a browser."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from impchat.app import App
from impchat.engines import Engine
from impchat.peers import discovery
from impchat.peers.servers import Server
from impchat_mobile import launch
from tests.mobile.fake import Phone

Play = Callable[..., None]


def drawing(colour: str = "red", size: tuple[int, int] = (320, 240)) -> bytes:
    """A PNG with one circle on white."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).ellipse([100, 60, 220, 180], fill=colour)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def picked(*pictures: bytes) -> list[dict[str, Any]]:
    """The result of the platform's picker."""
    return [
        {"id": number, "name": f"{number}.png", "size": len(data), "path": None, "bytes": data}
        for number, data in enumerate(pictures, 1)
    ]


@pytest.fixture(autouse=True)
def search_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search for servers on this machine only."""
    monkeypatch.setattr(discovery, "discover", partial(discovery.discover, 0.5, ["127.0.0.1"]))


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs a scene on a phone with the app just started: `play(scene, answers={...}, language="en")`."""

    def run(
        scene: Callable[[Phone, App], Awaitable[None]],
        answers: dict[str, Any] | None = None,
        language: str = "en",
        width: int = 412,
        server: Server | None = None,
        engine: Engine | None = None,
        link: str = "",
        shares: bool = False,
        model: str | None = None,
    ) -> None:
        async def whole() -> None:
            phone = Phone(answers, width=width, link=link)
            app = App.open(tmp_path, model, engine) if engine else launch.open_app(tmp_path)
            try:
                await launch.start(phone.page, lambda: app, language, server, shares)
                await scene(phone, app)
                assert phone.connection.crashes == []
            finally:
                await phone.session.dispatch_event(phone.page._i, "disconnect", None)
                phone.connection.dispose()
                await asyncio.to_thread(app.close)

        asyncio.run(whole())

    return run  # fmt: skip
