"""`impchat serve`: the API for other programs.

In: the data folder and the parsed words of the command. Out: a server until Ctrl-C, and exit codes.
This file does not know what the API says.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from impchat import settings
from impchat.app import App
from impchat.terminal import Screen


def run(data: Path, model: str | None, screen: Screen, args: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises SettingsError for a port that cannot be had, what `App.open` and `App.engine` raise,
    and ModuleNotFoundError where packages of the extra `serve` are missing."""
    from impchat.server import listen
    from impchat.server.api import build_api
    from impchat.server.desk import Desk

    with listen.bind(settings.HOST, args.port) as bound, App.open(data, model, slots=args.slots) as app:
        app.engine  # noqa: B018  # whoever finds the port open gets answers, and a broken model is told here
        api = build_api(app, desk=Desk(args.queue))

        def ready() -> None:
            print(screen.text("serve.address", address=listen.address(bound)), flush=True)

        with suppress(KeyboardInterrupt):  # how uvicorn passes Ctrl-C on when it has ended
            listen.Server(api, ready).run(sockets=[bound])
    return 0
