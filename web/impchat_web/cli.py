"""The command `impchat web`: opens the core, serves the page on this machine, prints its address.

In: the words behind `impchat web`. Out: an exit code: 0 after Ctrl-C, 2 with one sentence where it cannot run.
This file does not know what the page shows.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from impchat import settings
from impchat.errors import ImpChatError
from impchat.texts import LANGUAGES, say


def run(argv: list[str]) -> int:
    """Serve until Ctrl-C. `argv` holds the options alone."""
    options = _parser().parse_args(argv)
    language = options.language or "en"
    try:
        return _serve(options)
    except ImpChatError as error:
        print(error.sentence(language), file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="impchat web", description=say("web.cli.about"))
    parser.add_argument("--host", default=settings.HOST, help=say("web.cli.host"))
    parser.add_argument("--port", type=int, default=settings.PORT, help=say("web.cli.port"))
    parser.add_argument("--data", type=Path, help=say("web.cli.data"))
    parser.add_argument("--model", help=say("web.cli.model"))
    parser.add_argument("--language", choices=sorted(LANGUAGES), help=say("web.cli.language"))
    shown = argparse.BooleanOptionalAction
    parser.add_argument("--open", action=shown, default=_has_screen(), help=say("web.cli.open"))
    return parser


def _has_screen() -> bool:
    """Whether a person sits in front of this machine with a browser that would not take over the terminal."""
    screen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and sys.stdout.isatty()


def _serve(options: argparse.Namespace) -> int:
    from impchat.app import App
    from impchat_web import server

    bound = server.bind(options.host, options.port)  # first: a busy port must not cost the loading of a model
    with bound:
        host, port = bound.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def ready() -> None:
            print(say("web.cli.address", options.language or "en", address=address), flush=True)
            if options.open:
                webbrowser.open(address)

        web = server.build_app(App.open(options.data, options.model), options.language)
        with suppress(KeyboardInterrupt):  # how uvicorn passes Ctrl-C on when it has ended
            server.Server(web, ready).run(sockets=[bound])
    return 0
