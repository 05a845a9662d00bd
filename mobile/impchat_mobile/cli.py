"""The command `impchat mobile`: the phone app in a browser on this machine.

In: the command line's arguments after `mobile`. Out: exit code 0 after Ctrl-C, or an ImpChatError.
This file does not know what the app shows.
"""

from __future__ import annotations

import argparse
import os
import webbrowser
from dataclasses import replace

import flet as ft

from impchat import settings
from impchat.cli import servers
from impchat.cli.main import choose_language, chosen_data
from impchat.cli.parser import Parser, common_options, port, server_options
from impchat.cli.terminal import announce
from impchat.texts import say


def run(argv: list[str]) -> int:
    """Serve the app until Ctrl-C.

    Raises SettingsError for an invalid option or an unavailable port, and the errors of `App.open`, `servers.chosen`
    and, if a server was given without a model, `RemoteEngine.connect`."""
    language = choose_language(argv, os.environ)
    options = _parser(language).read(argv)
    return _serve(options, language) if options else 0


def _parser(language: str) -> Parser:
    parser = Parser(
        language,
        prog="impchat mobile",
        description=say("help.command.mobile", language),
        parents=[common_options(language), server_options(language)],
    )
    parser.option("-h", "--help", action="help", help="help")
    parser.option("--port", metavar="N", default=settings.MOBILE_PORT, type=port, help="web.port")
    parser.option("--open", action=argparse.BooleanOptionalAction, default=False, help="mobile.open")
    return parser


def _serve(options: argparse.Namespace, language: str) -> int:
    from impchat.server.http import loopback
    from impchat.server.network import sockets
    from impchat_mobile import host, launch

    forced = options.language if "language" in options else None
    with loopback.bind(settings.HOST, options.port) as bound:
        address = sockets.address(bound)
        data = (launch.data_dir() if "data" not in options else None) or chosen_data(options)
        server = servers.chosen(data, options, os.environ)
        with launch.open_app(data, options.model if "model" in options and not server else None) as app:
            if server and not server.model:
                server = replace(server, model=app.remote(server).connect().models[0])

            async def main(page: ft.Page) -> None:
                await launch.start(page, lambda: app, forced, server)

            def ready() -> None:
                announce(say("web.address", language, address=address))
                if options.open:
                    webbrowser.open(address)

            ft.context.disable_auto_update()
            sockets.serve(host.build_app(main), bound, ready, **loopback.SOCKETS)
    return 0
