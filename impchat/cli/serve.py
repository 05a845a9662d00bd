"""`impchat serve`, its tokens, and `impchat pair`: the API for other programs, and who may use it.

In: the data folder and parsed arguments. Out: a server until Ctrl-C or `kill`, tokens and pairing links on stdout, exit
codes.
This file does not know the API.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from impchat import paths, settings
from impchat.app import App, choose_bundle
from impchat.cli.terminal import Terminal, announce, printable
from impchat.errors import SettingsError
from impchat.models import verified

if TYPE_CHECKING:
    from impchat.peers.pairing import Link
    from impchat.server.tokens import Access

_POLL_S = 0.5  # polling, because another process redeems the code


def run(data: Path, model: str | None, screen: Terminal, args: argparse.Namespace) -> int:
    """Run the command and return its exit code. Raises ModuleNotFoundError if packages of the extra `serve` are
    missing."""
    from impchat.server.tokens import Access

    with closing(Access(paths.ensure_data_dir(data))) as access:
        if args.command == "pair":
            return _pair(data, access, screen)
        match args.subcommand if args.action else None:
            case "create":
                holder, token = access.create(args.name)
                screen.note("token.created", name=holder.name)
                print(token)
            case "list":
                _list(access, screen)
            case "revoke":
                screen.note("token.revoked", name=access.revoke(args.name).name)
            case _:
                _serve(data, model, access, screen, args)
    return 0


def _serve(data: Path, model: str | None, access: Access, screen: Terminal, args: argparse.Namespace) -> None:
    """Serve until Ctrl-C or `kill`. Raises SettingsError "serve.no_token" and for a port that cannot be used, and as
    `App.open` and `App.engine`."""
    from impchat.server.api.admission import AdmissionQueue
    from impchat.server.api.routes import build_api
    from impchat.server.fetch import Fetcher
    from impchat.server.network import listener, sockets

    if args.listen and not args.pair and not access.holders():
        raise SettingsError("serve.no_token")
    with ExitStack() as stack:
        how = {}
        if args.listen:
            opened = stack.enter_context(listener.opened(data, access, args.listen, args.port, plain=args.http))
            bound, how = opened.bound, opened.tls
            address = opened.address
        else:
            bound = stack.enter_context(sockets.bind(settings.HOST, args.port))
            address = sockets.address(bound)
        app = stack.enter_context(_open(data, model, args, stack))
        app.engine  # noqa: B018  # an open port must mean that answers work; report a broken model now
        api = build_api(
            app,
            queue=AdmissionQueue(args.queue),
            hosts=[*args.name, *(listener.names() if args.listen else [])],
            origins=args.allow_origin,
            access=access,
            token_needed=bool(args.listen),
            fetch=Fetcher() if args.fetch_pictures else None,
        )

        def ready() -> None:
            announce(screen.text("serve.address", address=address))
            if args.listen and args.http:
                screen.note("listen.plain")
            if args.pair:
                _show(_offer(data, access), screen)

        sockets.serve(api, bound, ready, **how)


def _open(data: Path, model: str | None, args: argparse.Namespace, stack: ExitStack) -> App:
    """The App to serve: with an engine in this process, or on a cluster that is shut down when `stack` exits."""
    if args.cluster is None:
        return App.open(data, model, slots=args.slots)
    from impchat.server.cluster.engine import open_cluster

    bundle = choose_bundle(data, model)
    verified.verify(data, bundle)
    engine = stack.enter_context(open_cluster(bundle, args.replicas, args.cluster or None, slots=args.slots))
    return App.open(data, bundle.path, engine)


def _list(access: Access, screen: Terminal) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("id", "kind", "name", "created", "used"):
        table.add_column(screen.text(f"token.column_{column}"), no_wrap=True)
    for holder in access.holders():
        used = (holder.used_utc or "")[:16] or screen.text("token.never")
        kind = screen.text(f"token.kind_{holder.kind}")
        table.add_row(holder.id, kind, printable(holder.name), holder.created_utc[:16], used)
    screen.table(table)


# impchat pair


def _pair(data: Path, access: Access, screen: Terminal) -> int:
    link = _offer(data, access)
    _show(link, screen)
    while (code := access.code(link.code)).state == "open":
        time.sleep(_POLL_S)
    if code.state == "over":
        screen.note("pair.over")
        return 1
    screen.note("pair.paired", device=code.device)
    return 0


def _offer(data: Path, access: Access) -> Link:
    from impchat.server.network import registry

    return registry.offer(data, access)


def _show(link: Link, screen: Terminal) -> None:
    import sys

    import segno

    if sys.stdout.isatty():
        segno.make(str(link), error="l").terminal(compact=True)
    print(link, flush=True)
    screen.note("pair.scan", minutes=settings.PAIR_CODE_S // 60)
    screen.note("pair.typed", place=link.places[0], code=link.code)
    if link.is_plain:
        screen.note("listen.plain")
    else:
        screen.note("pair.check", check=link.check)
        screen.note("pair.fingerprint", fingerprint=link.fingerprint)
