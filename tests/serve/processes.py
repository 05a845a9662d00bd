"""The descendants of a process and their listening sockets, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def descendants(of: int | None = None) -> set[int]:
    """The running descendants of this process or of process `of`, without zombies."""
    first = of or os.getpid()
    parents = all_running()
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {first}


def all_running() -> dict[int, int]:
    """Every running process of this machine, with its parent."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # the process has ended meanwhile
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    return parents


def listening(pid: int) -> set[str]:
    """The addresses, in /proc's hexadecimal form, on which the process `pid` listens for TCP connections."""
    addresses = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                addresses[f"socket:[{fields[9]}]"] = fields[1].partition(":")[0]
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(descriptor))
        except OSError:
            continue
    return {address for socket, address in addresses.items() if socket in held}
