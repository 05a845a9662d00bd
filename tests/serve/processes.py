"""The processes that this one has started, directly or not, and where they listen; read from /proc."""

from __future__ import annotations

import os
from pathlib import Path


def descendants() -> set[int]:
    """Those that run; not those that have ended and wait for somebody to notice."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended in between
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def listening(pid: int) -> set[str]:
    """The addresses, in /proc's hexadecimal, on which the process `pid` waits for TCP connections."""
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
