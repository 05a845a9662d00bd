"""Servers that answer instead of a model on this machine, and the file that stores them.

In: addresses as people type them, keys, certificates; a data folder. Out: `Server` values; `servers.json`, which only
its owner may read, because it holds keys. This file does not know how requests are sent.
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
_END = "/chat/completions"  # removed from the end of copied URLs


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how to authenticate both sides."""

    id: str
    name: str
    urls: tuple[str, ...]  # of its API, including /v1; the first one that answers is used
    key: str = field(default="", repr=False)  # "": none
    model: str = ""  # "": its only one
    certificate: str | None = None  # PEM; if set, no other certificate is trusted


def at(url: str, key: str = "", model: str = "", certificate: str | None = None) -> Server:
    """The server at an address as typed by a person. Raises SettingsError "server.address"."""
    api = normal(url)
    host = urlsplit(api).netloc
    return Server(host, host, (api,), key, model, certificate)


def normal(url: str) -> str:
    """The base URL of the API at `url`: a path is kept, without "/chat/completions"; without a path, /v1 is added.

    Raises SettingsError "server.address" unless it is an http(s) URL without credentials and query."""
    with suppress(ValueError):  # also raised for an invalid port
        found = urlsplit(url.strip())
        scheme, host, path, query, _ = found
        if scheme in ("http", "https") and found.hostname and found.port != 0 and "@" not in host and not query:
            return urlunsplit((scheme, host, path.rstrip("/").removesuffix(_END) or "/v1", "", ""))
    raise SettingsError("server.address", url=url)


def is_near(url: str) -> bool:
    """Whether `url` is on this machine or in a private network, judged by the host alone, without a DNS lookup."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local"))


def is_readable(url: str) -> bool:
    """Whether others can read what is sent to `url`: true of http to any other machine."""
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return False
    return url.startswith("http:") and host != "localhost"


def trust(certificate: str | None) -> ssl.SSLContext:
    """The TLS context for connections to a server. It trusts only `certificate`, which may be self-signed and need not
    name the host, because addresses in a home network change. With None it trusts the system's certificate authorities
    and checks the host name.

    Raises SettingsError "server.certificate" if `certificate` is invalid."""
    import ssl

    if certificate is None:
        context = ssl.create_default_context()
        found = ssl.get_default_verify_paths()
        if sys.platform != "win32" and not (found.cafile or found.capath):  # Python finds no system store, as on phones
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
    """A TLS context without trusted certificates, for clients that use only plain HTTP or add their own."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def key_in(text: str) -> str:
    """The key in `text`, the content of a file or a variable. Raises SettingsError "server.key"."""
    key = text.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SettingsError("server.key")
    return key


# The file


def load(data: Path) -> list[Server]:
    """The servers stored in the data folder `data`, oldest first.

    Raises SettingsError "server.file_broken"; HistoryError "data.unwritable" if the file cannot be read."""
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
    """Store `server`, replacing one with the same id. Raises as `load`, and HistoryError "data.unwritable"."""
    with _changing(data):
        kept = load(data)
        if all(one.id != server.id for one in kept):
            kept.append(server)
        _write(data, [server if one.id == server.id else one for one in kept])


def remove(data: Path, id: str) -> None:
    """Delete the server `id` and its key. Raises SettingsError "server.unknown", and as `save`."""
    with _changing(data):
        kept = load(data)
        rest = [one for one in kept if one.id != id]
        if len(rest) == len(kept):
            raise SettingsError("server.unknown", name=id, known=_names(kept))
        _write(data, rest)


def find(data: Path, name: str) -> Server:
    """The stored server with this id or name. Raises SettingsError "server.unknown", and as `load`."""
    kept = load(data)
    for server in kept:
        if name in (server.id, server.name):
            return server
    raise SettingsError("server.unknown", name=name, known=_names(kept))


def _names(kept: list[Server]) -> str:
    return ", ".join(server.name for server in kept) or "-"


@contextmanager
def _changing(data: Path) -> Iterator[None]:
    """Exclude other processes while the file is changed. Raises HistoryError "data.unwritable"."""
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
    """Write the file atomically, readable only by its owner."""
    write_atomic(data / FILE, json.dumps({"servers": [asdict(server) for server in kept]}, indent=2).encode())
