"""Whether the machine has processor time to spare for work that may turn out to be useless.

In: what the operating system reports. Out: yes or no. This file does not know what the work is.
"""

from __future__ import annotations

import os
from pathlib import Path

_POWER = Path("/sys/class/power_supply")  # Linux and Android; elsewhere mains power is assumed


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
