"""This machine: its memory, its processor and cores, and whether it has processor time to spare.

In: what the operating system reports. Out: a name, numbers, yes or no. This file does not know what they are used for.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_CORES = Path("/sys/devices/system/cpu")  # Linux and Android
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


def is_quiet() -> bool:
    """Whether other programs leave the processors to this one: times measured now are worth something."""
    try:
        return os.getloadavg()[0] < max(0.5, 0.25 * (os.cpu_count() or 1))
    except (AttributeError, OSError):
        return True


def processor() -> str:
    """The name of the processor, for example "AMD EPYC 9354"."""
    if sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string")
    else:
        lines = _read(Path("/proc/cpuinfo")).splitlines()
        found = dict(reversed([(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]))
        arm = (found.get("CPU implementer", ""), found.get("CPU part", ""))  # ARM has numbers only
        name = found.get("model name") or " ".join(filter(None, arm))
    return name or platform.processor() or platform.machine()


def physical_cores() -> int:
    """The number of cores that the processors which this process may use belong to; 0: unknown."""
    if sys.platform == "darwin":
        number = _sysctl("hw.physicalcpu")
        return int(number) if number.isdecimal() else 0
    if not hasattr(os, "sched_getaffinity"):
        return 0
    siblings = {_read(_CORES / f"cpu{n}/topology/thread_siblings_list") for n in os.sched_getaffinity(0)}
    return 0 if "" in siblings else len(siblings)


def own_memory_bytes() -> int:
    """Anonymous memory of this process, which the system cannot drop; 0: unknown."""
    found = [line for line in _read(Path("/proc/self/status")).splitlines() if line.startswith("RssAnon:")]
    return int(found[0].split()[1]) * 1024 if found else 0


def _sysctl(name: str) -> str:
    try:
        return subprocess.run(
            ["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
