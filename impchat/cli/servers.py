"""`impchat servers`, and which server an option `--server` means.

In: the data folder and the parsed words of a command. Out: an App whose answers come from there; printed lines and exit
codes. Keys come from files, the environment or `servers.json`, never from the command line, which other people of the
machine can see. This file does not know how a server is spoken to.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from impchat import paths
from impchat.app import App
from impchat.cli.terminal import Screen, printable, read_file
from impchat.errors import EngineError, SettingsError
from impchat.peers import pairing, servers
from impchat.peers.servers import Server

KEY = "IMPCHAT_SERVER_KEY"


def open_app(data: Path | None, options: argparse.Namespace) -> App:
    """The App of the model, or of the server, that `options` name. Raises what `App.open` and `chosen` raise, and
    EngineError where a server is to say which model it has and does not."""
    server = chosen(data or paths.data_dir(), options, os.environ)
    if server is None:
        return App.open(data, getattr(options, "model", None))
    from impchat.engines.remote.engine import RemoteEngine

    engine = RemoteEngine(server)
    try:
        try:
            engine.connect()
        except EngineError:  # its model's name is known: what was said before can be read, and may be asked again
            if not server.model:
                raise
        return App.open(data, engine=engine)
    except BaseException:
        engine.close()
        raise


def chosen(data: Path, options: argparse.Namespace, environ: Mapping[str, str]) -> Server | None:
    """The server that `--server` means: an address, or one that is kept; None where nothing was said.

    The key: that of `--key-file`, else the one that is kept, else that of the environment. `--model` names its model.
    Raises SettingsError as `servers.find`, `servers.normal` and `servers.key_in`, "file.unreadable"."""
    word = getattr(options, "server", None)
    if word is None:
        return None
    if "://" in word:
        typed = servers.at(word)
        server = next((kept for kept in servers.load(data) if typed.urls[0] in kept.urls), typed)
    else:
        server = servers.find(data, word)
    if options.key_file is not None:
        server = replace(server, key=_key(options.key_file))
    elif not server.key:
        server = replace(server, key=servers.key_in(environ.get(KEY, "")))
    return replace(server, model=getattr(options, "model", None) or server.model)


def _key(path: str) -> str:
    return servers.key_in(read_file(path).decode("utf-8", "replace"))


def run(data: Path, screen: Screen, args: argparse.Namespace) -> int:
    """`impchat servers list|add|rm`; the exit code. Raises as `servers` does."""
    match args.action:
        case "add":
            server = _paired(args) if pairing.is_link(args.url) else _typed(args)
            servers.save(data, server)
            screen.note("servers.added", name=server.name)
            if servers.is_readable(server.urls[0]):
                screen.note("doctor.server_readable", url=server.urls[0])
        case "rm":
            server = servers.find(data, args.server)
            servers.remove(data, server.id)
            screen.note("servers.removed", name=server.name)
        case _:
            kept = servers.load(data)
            if not kept:
                screen.note("servers.none")
            for server in kept:
                print(printable(_line(server, screen)))
    return 0


def _paired(args: argparse.Namespace) -> Server:
    """The server of a link that `impchat pair` shows there, with a token of this machine's own. Raises RequestError as
    `pairing`, SettingsError "option.unknown" for what a link has with it already."""
    for given, name in ((args.key_file, "--key-file"), (args.certificate, "--certificate")):
        if given is not None:
            raise SettingsError("option.unknown", option=name)
    server = pairing.pair(pairing.Link.read(args.url), platform.node() or "computer")
    return replace(server, name=args.name.strip()) if args.name else server


def _typed(args: argparse.Namespace) -> Server:
    key = _key(args.key_file) if args.key_file else ""
    certificate = read_file(args.certificate).decode("utf-8", "replace") if args.certificate else None
    if certificate is not None:
        servers.trust(certificate)  # whether it is one
    server = servers.at(args.url, key, getattr(args, "model", ""), certificate)
    if args.name is not None and not args.name.strip():
        raise SettingsError("option.no_value", name="--name", command="impchat servers add")
    return replace(server, name=args.name.strip()) if args.name else server


def _line(server: Server, screen: Screen) -> str:
    marks = [screen.text("servers.key")] * bool(server.key) + [screen.text("servers.pinned")] * bool(server.certificate)
    return "  ".join([server.name, *server.urls, server.model or "-", *marks])
