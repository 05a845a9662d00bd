"""`impchat servers`, and which server the option `--server` names.

In: the data folder and parsed arguments. Out: an App that answers through that server; printed lines and exit codes.
Keys come from files, the environment or `servers.json`, never from the command line, which other users of the machine
can see.
This file does not know the protocol.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from impchat import paths, texts
from impchat.app import App
from impchat.cli.terminal import Terminal, printable, read_file
from impchat.errors import EngineError, SettingsError
from impchat.peers import pairing, servers
from impchat.peers.servers import Server

KEY = "IMPCHAT_SERVER_KEY"


def open_app(data: Path | None, options: argparse.Namespace) -> App:
    """The App for the model or server that `options` name. Raises as `App.open` and `chosen`, and EngineError if the
    server must report which model it runs and does not."""
    server = chosen(data or paths.data_dir(), options, os.environ)
    if server is None:
        return App.open(data, getattr(options, "model", None))
    from impchat.engines.remote.engine import RemoteEngine

    engine = RemoteEngine(server)
    try:
        try:
            engine.connect()
        except EngineError:  # the model is known: old conversations can be read, and the server may be back later
            if not server.model:
                raise
        return App.open(data, engine=engine)
    except BaseException:
        engine.close()
        raise


def chosen(data: Path, options: argparse.Namespace, environ: Mapping[str, str]) -> Server | None:
    """The server of `--server`: an address or the name of a saved server; None without the option.

    The key is that of `--key-file`, else the saved one, else that of the environment. `--model` names the server's
    model.
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


def run(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    """Run `impchat servers list|add|rm` and return the exit code. Raises as `servers`."""
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
    """Redeem a link shown by `impchat pair`: the server, with a token for this machine. Raises RequestError as
    `pairing`, and SettingsError "option.unknown" for options that the link already determines."""
    for given, name in ((args.key_file, "--key-file"), (args.certificate, "--certificate")):
        if given is not None:
            raise SettingsError("option.unknown", option=name)
    server = pairing.pair(pairing.Link.read(args.url), platform.node() or "computer")
    return replace(server, name=args.name.strip()) if args.name else server


def _typed(args: argparse.Namespace) -> Server:
    key = _key(args.key_file) if args.key_file else ""
    certificate = read_file(args.certificate).decode("utf-8", "replace") if args.certificate else None
    if certificate is not None:
        servers.trust(certificate)  # check that it is a certificate
    server = servers.at(args.url, key, getattr(args, "model", ""), certificate)
    if args.name is not None and not args.name.strip():
        raise SettingsError("option.no_value", name="--name", command=f"{texts.command()} servers add")
    return replace(server, name=args.name.strip()) if args.name else server


def _line(server: Server, screen: Terminal) -> str:
    marks = [screen.text("servers.key")] * bool(server.key) + [screen.text("servers.pinned")] * bool(server.certificate)
    return "  ".join([server.name, *server.urls, server.model or "-", *marks])
