"""The command `impchat web`: opens the core and serves the page on this machine, and to devices on request.

In: the command line without `web`. Out: exit code 0 after Ctrl-C; an ImpChatError if it cannot run.
This file does not know what the page shows.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from contextlib import ExitStack, closing

from impchat import paths, settings
from impchat.cli.main import choose_language, chosen_data
from impchat.cli.parser import Parser, common_options, listen_options, port, server_options
from impchat.cli.servers import open_app
from impchat.cli.terminal import announce
from impchat.texts import say


def run(argv: list[str]) -> int:
    """Serve until Ctrl-C. Raises SettingsError for a wrong option or a port that cannot be used, and as `App.open`."""
    language = choose_language(argv, os.environ)
    options = _parser(language).read(argv)
    return _serve(options, language) if options else 0


def _parser(language: str) -> Parser:
    about = say("help.command.web", language)
    parser = Parser(
        language, prog="impchat web", description=about, parents=[common_options(language), server_options(language)]
    )
    parser.option("-h", "--help", action="help", help="help")
    parser.option("--host", metavar="ADDRESS", default=settings.HOST, help="web.host")
    parser.option("--port", metavar="N", default=settings.PORT, type=port, help="web.port")
    listen_options(parser)
    parser.option("--listen-port", metavar="N", default=settings.SERVE_PORT, type=port, help="web.listen_port")
    parser.option("--open", action=argparse.BooleanOptionalAction, default=_has_screen(), help="web.open")
    return parser


def _has_screen() -> bool:
    """Whether this machine has a display and the command runs in a terminal, so that a browser can be opened."""
    screen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return screen and sys.stdout.isatty()


def _serve(options: argparse.Namespace, language: str) -> int:
    from impchat.server.api.admission import AdmissionQueue
    from impchat.server.api.routes import build_api
    from impchat.server.http import loopback
    from impchat.server.network import listener, sockets
    from impchat.server.tokens import Access
    from impchat_web import server

    with ExitStack() as stack:
        # first, so that a busy port is reported before the rest is opened
        bound = stack.enter_context(loopback.bind(options.host, options.port))
        address = sockets.address(bound)
        data = paths.ensure_data_dir(chosen_data(options))
        access = stack.enter_context(closing(Access(data)))
        app = stack.enter_context(open_app(data, options))
        queue = AdmissionQueue(settings.QUEUE_REQUESTS)
        entrance = None
        if options.listen:
            how = {"plain": options.http}
            entrance = stack.enter_context(listener.opened(data, access, options.listen, options.listen_port, **how))
            hosts = [*options.name, *listener.names()]
            others = build_api(app, queue=queue, hosts=hosts, access=access, token_needed=True)
            stack.enter_context(listener.served(entrance, others))

        def ready() -> None:
            announce(say("web.address", language, address=address))
            if entrance:
                announce(say("web.entrance", language, address=entrance.address))
                if options.http:
                    announce(say("listen.plain", language))
            if options.open:
                webbrowser.open(address)

        web = server.build_app(app, options.language if "language" in options else None, access, queue)
        sockets.serve(web, bound, ready, **loopback.SOCKETS)
    return 0
