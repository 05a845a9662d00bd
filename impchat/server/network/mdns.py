"""Announcing the server in the local network with mDNS (DNS-SD), so that phones can list it.

In: a name, addresses, a port. Out: an announcement that lasts until it is closed. Devices do not trust it: the pairing
link proves which server it is.
This file does not know what is served.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from impchat.peers import discovery


class Announcement:
    """An mDNS announcement, sent only on the interfaces with `addresses` (IPv4)."""

    def __init__(self, id: str, name: str, addresses: Iterable[str], port: int, properties: Mapping[str, str]) -> None:
        """Raises OSError if the announcement cannot be sent."""
        from zeroconf import Error, IPVersion, ServiceInfo, Zeroconf

        listed: list[Any] = [address for address in addresses if ":" not in address]
        self._zeroconf = Zeroconf(interfaces=listed, ip_version=IPVersion.V4Only)
        # The id distinguishes servers with the same name, the port those of one data folder.
        info = ServiceInfo(
            discovery.SERVICE,
            f"ImpChat {id[:8]} {port}.{discovery.SERVICE}",
            addresses=[socket.inet_aton(address) for address in listed],
            port=port,
            properties={"id": id, "name": name} | dict(properties),
            server=f"impchat-{id[:8]}.local.",
        )
        try:
            self._zeroconf.register_service(info)
        except (Error, OSError) as exc:
            self._zeroconf.close()
            raise OSError(f"{type(exc).__name__} {exc}".strip()) from exc

    def close(self) -> None:
        """Withdraw the announcement."""
        self._zeroconf.close()
