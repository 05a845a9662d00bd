"""Fetching pictures from http(s) URLs, for a server that allows it: public addresses only.

In: an untrusted URL. Out: bytes. Each host name is resolved once, and the connection goes to exactly the address that
was checked, so DNS rebinding has no effect; each redirect is checked again.
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
_UNICAST = ipaddress.ip_network("2000::/3")  # the global unicast range of IPv6


def resolve(host: str) -> list[str]:
    """The IP addresses of a host name. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]


def is_public(address: Address) -> bool:
    """Whether the address is public: not private, local, multicast or a tunnel to another address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(address.ipv4_mapped)
        if address not in _UNICAST or address.sixtofour or address.teredo:  # 6to4 and Teredo lead to any IPv4 address
            return False
    return address.is_global and not address.is_multicast


class Fetcher:
    """Fetches a URL; a `schemas.Fetch`. `resolver` and `allowed` replace `resolve` and `is_public`."""

    def __init__(
        self, resolver: Callable[[str], Sequence[str]] = resolve, allowed: Callable[[Address], bool] = is_public
    ) -> None:
        self._resolve = resolver
        self._allowed = allowed

    def __call__(self, url: str) -> bytes:
        """The bytes at `url`. Raises RequestError "request.fetch_barred", "request.fetch_failed"."""
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
        """The bytes at `url`, or the target of a redirect as str."""
        if url.scheme not in ("http", "https") or not url.host:
            raise RequestError("request.fetch_barred", url=str(url))
        request = client.build_request(
            "GET",
            url.copy_with(host=self._address(url.raw_host.decode("ascii")), userinfo=b""),
            headers={"host": url.netloc.decode("ascii"), "accept": "image/*", "accept-encoding": "identity"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},  # the name that the certificate must match
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
        """The address to connect to. A name is barred if any of its addresses is barred."""
        found = [ipaddress.ip_address(a.partition("%")[0]) for a in self._resolve(host)]
        if not found or not all(map(self._allowed, found)):
            raise RequestError("request.fetch_barred", url=host)
        return str(found[0])
