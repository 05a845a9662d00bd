"""The addresses at which other devices can reach this machine, most likely first.

In: the address that a server listens on. Out: addresses. This file does not know what listens there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

# Networks of virtual machines and containers, and tunnels: a phone in the same Wi-Fi can hardly ever reach these.
_APART = re.compile(
    r"docker|br-|veth|virbr|vmnet|vboxnet|cni|flannel|cali|podman|lxc|lxd|vethernet|tun|tap|wg|utun|ppp|tailscale|zt|nebula"
)
_SHARED = ipaddress.ip_network("100.64.0.0/10")  # used by VPNs such as Tailscale, and by providers (CGNAT)


@dataclass(frozen=True, slots=True)
class Interface:
    """An address of a network interface of this machine."""

    name: str
    address: str


def cards() -> list[Interface]:
    """The addresses of all network interfaces."""
    import ifaddr

    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            text = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            found.append(Interface(adapter.nice_name, text))
    return found


def addresses(host: str, own: Iterable[Interface]) -> list[str]:
    """The addresses at which other devices can reach a server that listens on `host`: IPv4 before IPv6, VPNs and
    containers last; empty for loopback. `own`: the interfaces of this machine."""
    listening = ipaddress.ip_address(host)
    if listening.is_loopback:
        return []
    if not listening.is_unspecified:
        return [str(listening)]
    ranked = []
    for place, card in enumerate(own):
        address = ipaddress.ip_address(card.address.partition("%")[0])
        if address.is_loopback or address.is_link_local or address.is_multicast:
            continue
        if address.version == 6 and listening.version == 4:
            continue
        ranked.append((_is_apart(card.name, address), address.version, place, str(address)))
    return list(dict.fromkeys(address for *_, address in sorted(ranked)))


def _is_apart(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return _APART.match(name.lower()) is not None or (address.version == 4 and address in _SHARED)
