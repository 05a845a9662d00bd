"""Runs a command without a network, and reports what it tries to send and which files it leaves.

In: an empty folder and a command, as the first process of new network and mount namespaces (see `unshared`). Out: JSON
on stdout: the command's exit code and output, the names it looked up, the packets it sent to other machines, and the
files that are in its home and in the shared temporary folders afterwards.

The network has only the loopback device, but all internet addresses are routed to it, so every packet has a route and
is recorded by a packet socket on that device. The name server answers every query with an address, so that a program
goes on to connect.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pwd
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

NOWHERE = "203.0.113.1"  # the address of every name; RFC 5737 reserves it for documentation
_END = "203.0.113.2"  # a packet to it marks the end: all earlier ones have been recorded
_NAME_SERVER = 53
_SECONDS = 30.0
_MS_BIND, _MS_REC = 0x1000, 0x4000
# Programs may write there regardless of TMPDIR.
_SHARED = tuple(folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.path.isdir(folder))


def unshared() -> list[str]:
    """The beginning of a command line that runs the rest in new namespaces."""
    return ["unshare", "--net", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


def open_world(world: Path, keep: Collection[Path]) -> None:
    """Give this process and its children a home and empty shared temporary folders, all in `world`, and the recorder
    as the only name server. The folders `keep` stay visible."""
    _open_network()
    for name in ("home", *(path.strip("/") for path in _SHARED)):
        (world / name).mkdir(parents=True)
    for shared in _SHARED:
        for path in sorted(keep):
            if path.is_relative_to(shared):
                place = world / path.relative_to("/")
                place.mkdir(parents=True, exist_ok=True)
                _mount(path, place)
        _mount(world / shared.strip("/"), Path(shared))
    me = pwd.getpwuid(os.getuid())
    users = Path("/etc/passwd").read_text().splitlines(keepends=True)
    mine = ":".join(map(str, [*me[:5], f"{world}/home", me.pw_shell])) + "\n"
    contents = {
        "passwd": "".join([mine, *(line for line in users if not line.startswith(f"{me.pw_name}:"))]),
        "resolv.conf": "nameserver 127.0.0.1\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",  # no external program resolves names
    }
    for name, text in contents.items():
        (world / name).write_text(text)
        with suppress(FileNotFoundError):
            _mount(world / name, Path("/etc", name))


def _mount(source: Path, target: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def _open_network() -> None:
    """Start loopback, and make every address local."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0x41)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS
    device = socket.if_nametoindex("lo")
    for family in (socket.AF_INET, socket.AF_INET6):
        # rtnetlink(7): RTM_NEWROUTE for all addresses, in the table and of the type "local", by the device.
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 255, 3, 254, 2, 0) + struct.pack("=HHi", 8, 4, device)
        head = struct.pack("=IHHII", 16 + len(body), 24, 0x405, 1, 0)  # NLM_F_REQUEST | _ACK | _CREATE
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
            kernel.send(head + body)
            (error,) = struct.unpack_from("=i", kernel.recv(4096), 16)
        if error and family == socket.AF_INET:
            raise OSError(-error, os.strerror(-error))


class Recorder:
    """Records every packet of this network from now on."""

    def __init__(self) -> None:
        self._heard: set[str] = set()
        self._ended = threading.Event()
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
        self._wire.bind(("lo", 0))
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind(("", _NAME_SERVER))
        threading.Thread(target=self._see, daemon=True).start()
        threading.Thread(target=self._answer, args=(names,), daemon=True).start()

    def heard(self) -> list[str]:
        """What was sent so far: "name: …" for each name looked up, "packet: …" for each packet beyond loopback."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (_END, 9))
        assert self._ended.wait(_SECONDS), "the recorder does not see packets"
        return sorted(self._heard)

    def _see(self) -> None:
        while True:
            packet, (_, protocol, *_) = self._wire.recvfrom(65535)
            if protocol == 0x0800:
                kind, rest = packet[9], packet[4 * (packet[0] & 15) :]
                target = socket.inet_ntop(socket.AF_INET, packet[16:20])
            elif protocol == 0x86DD:
                kind, rest = packet[6], packet[40:]
                target = socket.inet_ntop(socket.AF_INET6, packet[24:40])
            else:
                self._heard.add(f"packet: protocol {protocol:#x}")
                continue
            port = int.from_bytes(rest[2:4], "big") if kind in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) else None
            if target == _END:
                self._ended.set()
            elif port == _NAME_SERVER and kind == socket.IPPROTO_UDP:
                self._heard.add(f"name: {_name(rest[8:])}")
            elif port == _NAME_SERVER or not (target.startswith("127.") or target == "::1"):
                self._heard.add(f"packet: to {target}, IP protocol {kind}, port {port}")

    def _answer(self, names: socket.socket) -> None:
        """Answer queries for an IPv4 address with NOWHERE, all others with an empty reply."""
        while True:
            query, asker = names.recvfrom(4096)
            end = query.index(0, 12) + 5
            found = query[end - 4 : end - 2] == b"\0\1"
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(NOWHERE) if found else b""
            names.sendto(query[:2] + b"\x81\x80\0\1" + bytes([0, found]) + bytes(4) + query[12:end] + answer, asker)


def _name(query: bytes) -> str:
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(labels)


def files(world: Path, keep: Collection[Path]) -> list[str]:
    """The files and the empty folders of the home ("~") and of the shared temporary folders, without `keep`."""
    found = []
    kept = [str(path) for path in keep]
    for place in (world / "home", *map(Path, _SHARED)):
        for folder, folders, names in os.walk(place):
            if not names and not folders and folder != str(place):
                found.append(f"{folder}/")
            folders[:] = [name for name in folders if os.path.join(folder, name) not in kept]
            found += [os.path.join(folder, name) for name in names]
    return sorted(path.replace(f"{world}/home", "~", 1) for path in found)


def main(world: Path, command: list[str]) -> None:
    # Everything that the command needs and that may be in a temporary folder.
    needed = map(Path, (world, os.getcwd(), sys.prefix, sys.base_prefix, *sys.path))
    keep = {path for path in needed if path.is_dir()}
    open_world(world, keep)
    recorder = Recorder()
    environment = os.environ | {"HOME": str(world / "home")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    report = {"code": done.returncode, "out": done.stdout, "heard": recorder.heard(), "files": files(world, keep)}
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
