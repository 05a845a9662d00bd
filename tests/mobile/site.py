"""The app served as `impchat mobile` serves it, on a free loopback port."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from impchat.app import App
from impchat.engines import Engine
from impchat.server.http import loopback
from impchat.server.network import sockets
from impchat_mobile import host, launch

SECONDS = 60.0  # a limit far above normal durations, also on a busy machine


class Site:
    """A server that runs until `close`. `engine` replaces the demo model."""

    def __init__(self, data: Path, language: str = "en", engine: Engine | None = None, port: int = 0) -> None:
        self.app = App.open(data, engine=engine) if engine else launch.open_app(data)

        async def main(page: Any) -> None:
            await launch.start(page, lambda: self.app, language)

        started = threading.Event()
        bound = loopback.bind("127.0.0.1", port)
        self.port = bound.getsockname()[1]
        self.url = f"{sockets.address(bound)}/"
        self._server = sockets.Server(host.build_app(main), started.set, **loopback.SOCKETS)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [bound]})
        self._thread.start()
        assert started.wait(SECONDS)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        self.app.close()
