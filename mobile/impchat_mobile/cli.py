"""The command `impchat mobile`: the phone app in a browser of this machine.

In: the words of the command line without `mobile`. Out: exit code 0 after Ctrl-C; an ImpChatError where it cannot run.
This file does not know what the app shows.
"""

from __future__ import annotations

import argparse
import os
import webbrowser
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import flet as ft

from impchat import cli_servers, paths, settings
from impchat.cli import choose_language
from impchat.cli_words import Parser, common_options, server_options
from impchat.errors import SettingsError
from impchat.texts import say


def run(argv: list[str]) -> int:
    """Serve until Ctrl-C. Raises SettingsError for a wrong option or a port that cannot be had, and what `App.open`,
    `cli_servers.chosen` and, where it is to say which model it has, `RemoteEngine.connect` raise."""
    language = choose_language(argv, os.environ)
    try:
        options, unknown = _parser(language).parse_known_args(argv)
    except SystemExit as exc:  # --help has printed what it says
        return int(exc.code or 0)
    if unknown:
        raise SettingsError("option.unknown", option=unknown[0])
    return _serve(options, language)


def _parser(language: str) -> Parser:
    parser = Parser(
        language,
        prog="impchat mobile",
        description=say("help.command.mobile", language),
        parents=[common_options(language), server_options(language)],
    )
    parser.option("-h", "--help", action="help", help="help")
    parser.option("--port", metavar="N", default=settings.MOBILE_PORT, type=_port, help="web.port")
    parser.option("--open", action=argparse.BooleanOptionalAction, default=False, help="web.open")
    return parser


def _port(value: str) -> int:
    if not value.isdecimal() or int(value) > 65535:
        raise SettingsError("web.port", port=value)
    return int(value)


def _serve(options: argparse.Namespace, language: str) -> int:
    from impchat_mobile import host, launch

    forced = options.language if "language" in options else None
    with host.bind(options.port) as bound:
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        data = Path(options.data).expanduser() if "data" in options else launch.data_dir() or paths.data_dir()
        server = cli_servers.chosen(data, options, os.environ)
        with launch.open_app(data, options.model if "model" in options and not server else None) as app:
            if server and not server.model:
                server = replace(server, model=app.remote(server).connect().models[0])

            async def main(page: ft.Page) -> None:
                await launch.start(page, lambda: app, forced, server)

            print(say("web.address", language, address=address), flush=True)
            if options.open:
                webbrowser.open(address)
            with suppress(KeyboardInterrupt):
                host.serve(main, bound)
    return 0
