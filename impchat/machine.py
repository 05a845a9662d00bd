"""The memory of this machine, and whether it has processor time to spare for work that may turn out to be useless.

In: what the operating system reports. Out: bytes; yes or no. This file does not know what the work is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_POWER = Path("/sys/class/power_supply")  # Linux and Android; elsewhere mains power is assumed


_WORDS = Literal["fits", "tight", "too_large", "unknown"]


@dataclass(frozen=True, slots=True)
class Memory:
    """Of this machine, in bytes."""

    free: int  # available to programs without swapping
    total: int

    def fits(self, needed: int) -> _WORDS:
        """Whether it fits: "fits" now; "tight": after other programs are closed; "too_large" for this machine."""
        if not needed:
            return "unknown"
        return "fits" if needed <= self.free else "tight" if needed <= self.total else "too_large"


def memory() -> Memory | None:
    """None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    if not {"MemAvailable", "MemTotal"} <= found.keys():
        return None
    return Memory(found["MemAvailable"], found["MemTotal"])


def is_spare() -> bool:
    """Whether the machine is not on battery and has not twice as much work as processors."""
    return not _is_busy() and not _is_on_battery()


def _is_busy() -> bool:
    try:
        return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)
    except (AttributeError, OSError):  # Windows has no load average
        return False


def _is_on_battery() -> bool:
    """Whether a battery is being discharged."""
    try:
        return any(_read(supply / "status") == "Discharging" for supply in _POWER.iterdir())
    except OSError:  # no such folder, or not readable
        return False


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
