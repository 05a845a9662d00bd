"""Pairing, seen from the device: a link from a server's QR code -> that server, with a token of the device's own.

In: a link. Out: a `Server`. The device tries the link's addresses until one proves itself: whoever answers there must
hold the key of just the certificate that the link names; only then it is told the one-time code. Where a person types
the code, `meet` makes the link of the certificate that is found, and the person compares its `check` in place of the QR
code's fingerprint.
This file does not know how a link is made visible, nor where servers are kept.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from impchat import settings
from impchat.errors import RequestError
from impchat.peers import servers
from impchat.peers.servers import Server

if TYPE_CHECKING:
    import httpx

SCHEME = "impchat"
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # of codes and checks: none that is taken for another one
_MISREAD = str.maketrans("OIL", "011", " -")


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
    def check(self) -> str:
        """80 bits of the fingerprint, for a person to compare; "": it speaks plain HTTP, so there is nothing to."""
        if self.is_plain:
            return ""
        number = int(self.fingerprint[:20], 16)
        letters = [LETTERS[number >> shift & 31] for shift in range(75, -1, -5)]
        return " ".join("".join(letters[at : at + 4]) for at in range(0, len(letters), 4))

    @property
    def is_plain(self) -> bool:
        """Everybody in the same network can read what is said: a person should be warned."""
        return not self.fingerprint


def is_link(text: str) -> bool:
    """Whether `text` means to be a pairing link; `Link.read` tells whether it is one."""
    return text.strip().lower().startswith(f"{SCHEME}:")


def place_of(address: str) -> str:
    """host:port of an address as people type it, or as a server shows it. Raises RequestError "pair.address"."""
    with suppress(ValueError):  # also of a port that is none
        found = urlsplit(address.strip() if "//" in address else f"//{address.strip()}")
        host, port = found.hostname or "", found.port or settings.SERVE_PORT
        if host.split() == [host] and "@" not in found.netloc and found.scheme in ("", "http", "https"):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise RequestError("pair.address", address=address)


def meet(places: Sequence[str], code: str) -> Link:
    """The link to the server at the first of `places`, made of a code that a person has read there and of the
    certificate that is shown here. To be believed only once that person has found its `check` there as well: whoever is
    in between can show another one. The code is told to nobody.

    Raises RequestError "pair.code_form", "pair.nobody" (nothing answers), "pair.else" (what answers is no ImpChat)."""
    import httpx

    place, code = places[0], spelt(code)
    if len(code) != settings.PAIR_CODE_CHARS or not {*code} <= {*LETTERS}:
        raise RequestError("pair.code_form", count=settings.PAIR_CODE_CHARS)
    certificate = _certificate(place)
    scheme = "https" if certificate else "http"
    try:
        with _client(certificate) as client:
            health: Any = client.get(f"{scheme}://{place}/health").json()
        if health["status"] == "ok" and health["model"]:
            return Link(tuple(places), code, _fingerprint(certificate) if certificate else "")
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as exc:
        if not certificate:
            raise RequestError("pair.nobody", place=place) from exc
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        pass
    raise RequestError("pair.else", place=place)


def spelt(code: str) -> str:
    """A code as it was meant, however a person has written it."""
    return code.upper().translate(_MISREAD)


def one_line(name: str) -> str:
    """A name that a stranger gives, as printable characters that fit a line."""
    return "".join(c for c in " ".join(name.split()) if c.isprintable())[: settings.DEVICE_NAME_CHARS]


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
        if _fingerprint(certificate) != link.fingerprint:
            raise _Stranger
    scheme = "https" if certificate else "http"
    try:
        with _client(certificate) as client:
            response = client.post(f"{scheme}://{place}/pair", json={"code": link.code, "name": device})
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        if _is_of_tls(exc):  # it has shown the certificate, and has not its key
            raise _Stranger from exc
        return None
    return _server(response, link, scheme, place, certificate)


def _client(certificate: str | None) -> httpx.Client:
    import httpx

    return httpx.Client(verify=servers.trust(certificate), trust_env=False, timeout=settings.PAIR_WAIT_S)


def _fingerprint(certificate: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


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
