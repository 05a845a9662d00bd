"""Pairing, seen from the device: a link from a server's QR code -> that server, with a token of the device's own.

In: a link. Out: a `Server`. The device tries the link's addresses until one proves itself: whoever answers there must
hold the key of just the certificate that the link names; only then it is told the one-time code.
This file does not know how a link is made visible, nor where servers are kept.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from impchat import servers, settings
from impchat.errors import RequestError
from impchat.servers import Server

if TYPE_CHECKING:
    import httpx

SCHEME = "impchat"
SERVICE = "_impchat._tcp.local."


@dataclass(frozen=True, slots=True)
class Link:
    """What a server's QR code says. `fingerprint`: SHA-256 of its certificate in hex; "": it speaks plain HTTP."""

    places: tuple[str, ...]  # host:port, the likeliest first
    code: str
    fingerprint: str

    def __str__(self) -> str:
        pin = base64.urlsafe_b64encode(bytes.fromhex(self.fingerprint)).decode().rstrip("=")
        words = {"a": ",".join(self.places), "c": self.code.replace("-", "")} | ({"f": pin} if pin else {})
        return f"{SCHEME}://pair?{urlencode(words, safe=',:[]')}"

    @classmethod
    def read(cls, text: str) -> Link:
        """The link in `text`. Raises RequestError "pair.link"."""
        try:
            parts = urlsplit(text.strip())
            words = {key: values[0] for key, values in parse_qs(parts.query, strict_parsing=True).items()}
            pin = words.get("f", "")
            link = cls(
                tuple(words["a"].split(",")), words["c"], base64.urlsafe_b64decode(pin + "=" * (-len(pin) % 4)).hex()
            )
            whole = parts.scheme == SCHEME and parts.netloc == "pair" and len(link.fingerprint) in (0, 64)
            if whole and all(urlsplit(f"//{place}").hostname and urlsplit(f"//{place}").port for place in link.places):
                return link
        except (ValueError, KeyError):
            pass
        raise RequestError("pair.link")

    @property
    def is_plain(self) -> bool:
        """Everybody in the same network can read what is said: a person should be warned."""
        return not self.fingerprint


def pair(link: Link, device: str) -> Server:
    """The server of `link`, which knows this device as `device` from now on.

    Raises RequestError "pair.code" (wrong, used, expired), "pair.unreachable" (no address answers), "pair.stranger"
    (something answered, and it was not that server)."""
    strangers = 0
    for place in link.places:
        try:
            found = _exchange(link, place, device)
        except _Stranger:
            strangers += 1
            continue
        if found is not None:
            return found
    raise RequestError("pair.stranger" if strangers else "pair.unreachable", places=", ".join(link.places))


class _Stranger(Exception):
    """Who answers is not who the link names."""


def _exchange(link: Link, place: str, device: str) -> Server | None:
    """The server at `place`; None where nobody answers there."""
    import httpx

    certificate = None
    if link.fingerprint:
        certificate = _certificate(place)
        if certificate is None:
            return None
        if hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest() != link.fingerprint:
            raise _Stranger
    scheme = "https" if certificate else "http"
    try:
        with httpx.Client(verify=servers.trust(certificate), trust_env=False, timeout=settings.PAIR_WAIT_S) as client:
            response = client.post(f"{scheme}://{place}/pair", json={"code": link.code, "name": device})
    except httpx.HTTPError as exc:
        if _is_of_tls(exc):  # it has shown the certificate, and has not its key
            raise _Stranger from exc
        return None
    return _server(response, link, scheme, place, certificate)


def _is_of_tls(exc: BaseException | None) -> bool:
    """Whether an error comes from a handshake, however httpx has wrapped it."""
    return exc is not None and (isinstance(exc, ssl.SSLError) or _is_of_tls(exc.__cause__ or exc.__context__))


def _certificate(place: str) -> str | None:
    """The certificate that is shown at `place`, believed by nobody yet; None where there is no TLS."""
    found = urlsplit(f"//{place}")
    assert found.hostname and found.port
    try:
        return ssl.get_server_certificate((found.hostname, found.port), timeout=settings.PAIR_WAIT_S)
    except (OSError, ValueError):
        return None


def _server(response: httpx.Response, link: Link, scheme: str, place: str, certificate: str | None) -> Server:
    try:
        told: Any = response.json()
        if response.status_code == 200:
            places = (place, *(other for other in link.places if other != place))
            urls = tuple(f"{scheme}://{each}/v1" for each in places)
            return Server(str(told["id"]), str(told["name"]), urls, str(told["token"]), str(told["model"]), certificate)
        if told["error"]["code"] == "pair.code":
            raise RequestError("pair.code")
    except (ValueError, KeyError, TypeError):
        pass
    raise _Stranger


@dataclass(frozen=True, slots=True)
class Found:
    """A server that says it is there. Believe nothing of it: its link proves who it is."""

    id: str
    name: str
    places: tuple[str, ...]


def discover(seconds: float = settings.DISCOVER_S, interfaces: Iterable[str] | None = None) -> list[Found]:
    """The servers of the local network that say so within `seconds`; on the cards with these addresses alone.

    Raises ModuleNotFoundError where the package zeroconf is missing."""
    from zeroconf import InterfaceChoice, IPVersion, ServiceBrowser, Zeroconf

    cards: Any = list(interfaces) if interfaces else InterfaceChoice.All
    zeroconf = Zeroconf(interfaces=cards, ip_version=IPVersion.V4Only)
    names: dict[str, None] = {}

    def heard(zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        names[name] = None

    try:
        ServiceBrowser(zeroconf, SERVICE, handlers=[heard])
        time.sleep(seconds)
        infos = [zeroconf.get_service_info(SERVICE, name, timeout=1000) for name in [*names]]
    finally:
        zeroconf.close()
    found = []
    for info in infos:
        if info is not None and info.port:
            words = {k.decode(): (v or b"").decode("utf-8", "replace") for k, v in info.properties.items()}
            places = tuple(f"{address}:{info.port}" for address in info.parsed_addresses())
            found.append(Found(words.get("id", ""), words.get("name", ""), places))
    return sorted(found, key=lambda one: one.name)
