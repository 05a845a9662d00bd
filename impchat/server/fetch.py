"""Pictures from http(s) addresses, for a server that was told to fetch them: public addresses alone.

In: an address that a stranger chose. Out: bytes. Every name is resolved once and the connection goes to just the
address that was looked at, so a name cannot change its mind in between; each redirect is looked at anew.
This file does not know what the bytes are.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Sequence

import httpx

from impchat import settings
from impchat.errors import RequestError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that the internet is made of


def resolve(host: str) -> list[str]:
    """The addresses of a name. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def is_public(address: Address) -> bool:
    """Whether anybody on the internet reaches the same machine by it as we do."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address not in _UNICAST or address.sixtofour or address.teredo:  # the last two lead to any IPv4 address
            return False
    return address.is_global and not address.is_multicast


class Fetcher:
    """Gets what is behind an address, as `wire.Fetch`. `resolver` and `allowed` as the functions of this module."""

    def __init__(
        self, resolver: Callable[[str], Sequence[str]] = resolve, allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._resolve = resolver
        self._allowed = allowed

    def __call__(self, url: str) -> bytes:
        """Raises RequestError "request.fetch_barred", "request.fetch_failed"."""
        give_up = time.monotonic() + settings.FETCH_S
        try:
            with httpx.Client(trust_env=False, timeout=settings.FETCH_S) as client:
                for _ in range(settings.FETCH_REDIRECTS + 1):
                    found = self._get(client, httpx.URL(url), give_up)
                    if isinstance(found, bytes):
                        return found
                    url = str(httpx.URL(url).join(found))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as exc:
            raise RequestError("request.fetch_failed", url=url) from exc
        raise RequestError("request.fetch_failed", url=url)

    def _get(self, client: httpx.Client, url: httpx.URL, give_up: float) -> bytes | str:
        """What is there, or where it says that it is."""
        if url.scheme not in ("http", "https") or not url.host:
            raise RequestError("request.fetch_barred", url=str(url))
        request = client.build_request(
            "GET",
            url.copy_with(host=self._address(url.raw_host.decode("ascii")), userinfo=b""),
            headers={"host": url.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},  # what the certificate must name
        )
        response = client.send(request, stream=True)
        try:
            if response.has_redirect_location:
                return str(response.headers["location"])
            if response.status_code != 200:
                raise RequestError("request.fetch_failed", url=str(url))
            data = bytearray()
            for piece in response.iter_raw():
                data += piece
                if len(data) > settings.IMAGE_BYTES or time.monotonic() > give_up:
                    raise RequestError("request.fetch_failed", url=str(url))
            return bytes(data)
        finally:
            response.close()

    def _address(self, host: str) -> str:
        """The address to connect to. A name that has any barred address is barred, whichever would be taken."""
        found = [ipaddress.ip_address(a.partition("%")[0]) for a in self._resolve(host)]
        if not found or not all(map(self._allowed, found)):
            raise RequestError("request.fetch_barred", url=host)
        return str(found[0])
