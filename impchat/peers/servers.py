"""Servers that answer in place of a model on this machine, and the file in which they are kept.

In: addresses as people type them, keys, certificates; a data folder. Out: `Server` values; `servers.json`, which its
owner alone may read, for it holds keys. This file does not know how a server is spoken to.
"""

from __future__ import annotations

import ipaddress
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from impchat import paths, settings
from impchat.errors import HistoryError, SettingsError
from impchat.files import write_atomic
from impchat.locks import FileLock

if TYPE_CHECKING:
    import ssl

FILE = "servers.json"
_END = "/chat/completions"  # of addresses that people copy


@dataclass(frozen=True, slots=True)
class Server:
    """Who answers, and how to prove who is who."""

    id: str
    name: str
    urls: tuple[str, ...]  # of its API, up to and with /v1; the first one that answers is used
    key: str = field(default="", repr=False)  # "": none
    model: str = ""  # "": the one that it has
    certificate: str | None = None  # PEM; where there is one, nothing else is trusted


def at(url: str, key: str = "", model: str = "", certificate: str | None = None) -> Server:
    """The server at an address that a person typed. Raises SettingsError "server.address"."""
    api = normal(url)
    host = urlsplit(api).netloc
    return Server(host, host, (api,), key, model, certificate)


def normal(url: str) -> str:
    """The address of the API at `url`: /v1 is added where there is no path, and taken as it is where there is one.

    Raises SettingsError "server.address" for what is no http(s) address, or one with a password in it."""
    with suppress(ValueError):  # also of a port that is none
        found = urlsplit(url.strip())
        scheme, host, path, query, _ = found
        if scheme in ("http", "https") and found.hostname and found.port != 0 and "@" not in host and not query:
            return urlunsplit((scheme, host, path.rstrip("/").removesuffix(_END) or "/v1", "", ""))
    raise SettingsError("server.address", url=url)


def is_near(url: str) -> bool:
    """Whether `url` is on this machine or in a private network, as far as it can be seen from the address alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local"))


def is_readable(url: str) -> bool:
    """Whether everybody on the way to `url` can read what is sent there."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return False
    return url.startswith("http:") and host != "localhost"


def trust(certificate: str | None) -> ssl.SSLContext:
    """What a connection must prove: that it is to the holder of `certificate`, which may be self-signed and need not
    name the address (those of a home change), or, where None, to one that this system trusts under that name.

    Raises SettingsError "server.certificate" for what is no certificate."""
    import ssl

    if certificate is None:
        context = ssl.create_default_context()
        found = ssl.get_default_verify_paths()
        if sys.platform != "win32" and not (found.cafile or found.capath):  # Python knows of none here, as on a phone
            import certifi

            context.load_verify_locations(certifi.where())
        return context
    context = trust_nobody()
    try:
        context.load_verify_locations(cadata=certificate)
    except (ssl.SSLError, ValueError) as exc:
        raise SettingsError("server.certificate") from exc
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def trust_nobody() -> ssl.SSLContext:
    """For connections that have nothing to prove."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def key_in(text: str) -> str:
    """The key in `text`, as a file or a variable holds it. Raises SettingsError "server.key"."""
    key = text.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SettingsError("server.key")
    return key


# The file


def load(data: Path) -> list[Server]:
    """The servers kept in the data folder `data`, oldest first.

    Raises SettingsError "server.file_broken"; HistoryError "data.unwritable" where the file cannot be read."""
    path = data / FILE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["servers"]
        return [Server(**row | {"urls": tuple(row["urls"])}) for row in rows]
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(path)) from exc
    except (ValueError, TypeError, KeyError) as exc:
        raise SettingsError("server.file_broken", path=str(path)) from exc


def save(data: Path, server: Server) -> None:
    """Keep `server`; it takes the place of one with its id. Raises as `load`, HistoryError "data.unwritable"."""
    with _changing(data):
        kept = load(data)
        if all(one.id != server.id for one in kept):
            kept.append(server)
        _write(data, [server if one.id == server.id else one for one in kept])


def remove(data: Path, id: str) -> None:
    """Forget the server `id` and its key. Raises SettingsError "server.unknown", and as `save`."""
    with _changing(data):
        kept = load(data)
        rest = [one for one in kept if one.id != id]
        if len(rest) == len(kept):
            raise SettingsError("server.unknown", name=id, known=_names(kept))
        _write(data, rest)


def find(data: Path, name: str) -> Server:
    """The kept server with this id or name. Raises SettingsError "server.unknown", and as `load`."""
    kept = load(data)
    for server in kept:
        if name in (server.id, server.name):
            return server
    raise SettingsError("server.unknown", name=name, known=_names(kept))


def _names(kept: list[Server]) -> str:
    return ", ".join(server.name for server in kept) or "-"


@contextmanager
def _changing(data: Path) -> Iterator[None]:
    """One change at a time, whichever process makes it."""
    lock = FileLock(paths.ensure_data_dir(data) / f".{FILE}.lock")
    try:
        if not lock.acquire(settings.BUSY_TIMEOUT_S):
            raise HistoryError("data.unwritable", path=str(data / FILE))
        yield
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(data / FILE)) from exc
    finally:
        lock.release()


def _write(data: Path, kept: list[Server]) -> None:
    """Put the file at its place, whole, for its owner's eyes alone."""
    write_atomic(data / FILE, json.dumps({"servers": [asdict(server) for server in kept]}, indent=2).encode())
