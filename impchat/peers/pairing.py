"""The device's side of pairing: the link in a server's QR code -> that server, with a token for this device.

In: a link. Out: a `Server`. The device tries the link's addresses. It sends the one-time code only to a server that
proves to hold the key of the certificate with the link's fingerprint. If a person types the code instead, `meet`
creates the link from the certificate that it receives, and the person must compare its `check`.
This file does not know how a link is shown, nor where servers are stored.
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
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # of codes and checks; without I, L, O and U, which are easily misread
_MISREAD = str.maketrans("OIL", "011", " -")


@dataclass(frozen=True, slots=True)
class Link:
    """The content of a server's QR code. `fingerprint`: SHA-256 of its certificate in hex; "": plain HTTP."""

    places: tuple[str, ...]  # host:port, most likely first
    code: str
    fingerprint: str

    def __str__(self) -> str:
        pin = base64.urlsafe_b64encode(bytes.fromhex(self.fingerprint)).decode().rstrip("=")
        words = {"a": ",".join(self.places), "c": self.code.replace("-", "")} | ({"f": pin} if pin else {})
        return f"{SCHEME}://pair?{urlencode(words, safe=',:[]')}"

    @classmethod
    def read(cls, text: str) -> Link:
        """Parse a link. Raises RequestError "pair.link"."""
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
        """The first 80 bits of the fingerprint, for a person to compare; "" for plain HTTP."""
        if self.is_plain:
            return ""
        number = int(self.fingerprint[:20], 16)
        letters = [LETTERS[number >> shift & 31] for shift in range(75, -1, -5)]
        return " ".join("".join(letters[at : at + 4]) for at in range(0, len(letters), 4))

    @property
    def is_plain(self) -> bool:
        """Whether the server uses plain HTTP, which others in the network can read: warn the person."""
        return not self.fingerprint


def is_link(text: str) -> bool:
    """Whether `text` looks like a pairing link; `Link.read` checks whether it is valid."""
    return text.strip().lower().startswith(f"{SCHEME}:")


def place_of(address: str) -> str:
    """host:port of an address as typed by a person or shown by a server. Raises RequestError "pair.address"."""
    with suppress(ValueError):  # also raised for an invalid port
        found = urlsplit(address.strip() if "//" in address else f"//{address.strip()}")
        host, port = found.hostname or "", found.port or settings.SERVE_PORT
        if host.split() == [host] and "@" not in found.netloc and found.scheme in ("", "http", "https"):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise RequestError("pair.address", address=address)


def meet(places: Sequence[str], code: str) -> Link:
    """A link to the server at the first of `places`, from the typed `code` and the certificate that it presents. Do not
    use it before the person has compared its `check` with the one on the server's screen: a man in the middle would
    present another certificate. The code is not sent.

    Raises RequestError "pair.code_form", "pair.nobody" (nothing answers), "pair.else" (it is not ImpChat)."""
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
    """A code in canonical form: upper case, without spaces and hyphens, with misread letters replaced."""
    return code.upper().translate(_MISREAD)


def one_line(name: str) -> str:
    """An untrusted name as one line of printable characters, at most `settings.DEVICE_NAME_CHARS` long."""
    return "".join(c for c in " ".join(name.split()) if c.isprintable())[: settings.DEVICE_NAME_CHARS]


def pair(link: Link, device: str) -> Server:
    """Pair with the server of `link`, under the name `device`. Returns the server, with a token as its key.

    Raises RequestError "pair.code" (wrong, used or expired), "pair.unreachable" (no address answers), "pair.stranger"
    (only other servers answered)."""
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
    """The server that answers is not the one that the link names."""


def _exchange(link: Link, place: str, device: str) -> Server | None:
    """Send the code to `place`. Returns the server, or None if nothing answers. Raises _Stranger, and RequestError
    "pair.code"."""
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
        if _is_of_tls(exc):  # it presented the certificate but does not have its key
            raise _Stranger from exc
        return None
    return _server(response, link, scheme, place, certificate)


def _client(certificate: str | None) -> httpx.Client:
    import httpx

    return httpx.Client(verify=servers.trust(certificate), trust_env=False, timeout=settings.PAIR_WAIT_S)


def _fingerprint(certificate: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


def _is_of_tls(exc: BaseException | None) -> bool:
    """Whether an error was caused by TLS, even if httpx has wrapped it."""
    return exc is not None and (isinstance(exc, ssl.SSLError) or _is_of_tls(exc.__cause__ or exc.__context__))


def _certificate(place: str) -> str | None:
    """The certificate in PEM that `place` presents, unverified; None if there is no TLS."""
    found = urlsplit(f"//{place}")
    assert found.hostname and found.port
    try:
        return ssl.get_server_certificate((found.hostname, found.port), timeout=settings.PAIR_WAIT_S)
    except (OSError, ValueError):
        return None


def _server(response: httpx.Response, link: Link, scheme: str, place: str, certificate: str | None) -> Server:
    try:
        reply: Any = response.json()
        if response.status_code == 200:
            places = (place, *(other for other in link.places if other != place))
            urls = tuple(f"{scheme}://{each}/v1" for each in places)
            return Server(
                str(reply["id"]), str(reply["name"]), urls, str(reply["token"]), str(reply["model"]), certificate
            )
        if reply["error"]["code"] == "pair.code":
            raise RequestError("pair.code")
    except (ValueError, KeyError, TypeError):
        pass
    raise _Stranger
