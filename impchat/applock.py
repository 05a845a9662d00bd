"""The app lock: a PIN, stored as a slow hash, with a limited number of attempts.

In: the data folder and the digits that a user types. Out: whether they are the PIN; how long to wait after wrong ones.
Each attempt is recorded before it is checked, so that ending the program does not give it back. The lock keeps others
out of the app only: stored data are not encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from impchat import settings
from impchat.errors import SettingsError
from impchat.preferences import write_private

_FILE = "lock.json"


def is_set(data: Path) -> bool:
    """Whether the data folder `data` is locked by a PIN. An unreadable lock file counts as locked."""
    return (data / _FILE).exists()


def examine(pin: str) -> None:
    """Check that `pin` is allowed. Raises SettingsError "lock.pin" unless it is 4 to 12 digits."""
    if not (settings.PIN_DIGITS[0] <= len(pin) <= settings.PIN_DIGITS[1] and pin.isascii() and pin.isdigit()):
        raise SettingsError("lock.pin", least=settings.PIN_DIGITS[0], most=settings.PIN_DIGITS[1])


def set_pin(data: Path, pin: str) -> None:
    """Set `pin`. Raises as `examine`, and HistoryError "data.unwritable"."""
    examine(pin)
    salt = secrets.token_hex(16)
    _write(data, {"salt": salt, "rounds": settings.PIN_ROUNDS, "hash": _hash(pin, salt, settings.PIN_ROUNDS)})


def check(data: Path, pin: str, now: Callable[[], float] = time.time) -> None:
    """Return if `pin` is right. `now`: the current time in seconds since the epoch.

    Raises SettingsError "lock.wrong", or "lock.wait" during the pause after too many wrong attempts."""
    kept = _read(data)
    wait_s = waiting_s(data, now)
    if wait_s:
        raise SettingsError("lock.wait", seconds=wait_s)
    wrong = int(kept.get("wrong", 0)) + 1
    _write(data, kept | {"wrong": wrong, "last": now()})
    if not hmac.compare_digest(_hash(pin, kept["salt"], kept["rounds"]), kept["hash"]):
        left = settings.PIN_TRIES - wrong
        if left > 0:
            raise SettingsError("lock.wrong", left=left)
        raise SettingsError("lock.wait", seconds=waiting_s(data, now))
    _write(data, {name: kept[name] for name in ("salt", "rounds", "hash")})


def waiting_s(data: Path, now: Callable[[], float] = time.time) -> int:
    """Seconds until the next attempt is allowed; 0: now. Each wrong PIN beyond the allowed number doubles the pause."""
    kept = _read(data)
    over = int(kept.get("wrong", 0)) - settings.PIN_TRIES
    if over < 0:
        return 0
    pause: int = min(settings.PIN_PAUSE_S << min(over, 20), settings.PIN_PAUSE_MOST_S)
    passed = now() - float(kept.get("last", 0))
    return max(0, round(pause - passed)) if passed >= 0 else pause  # setting the clock back does not shorten it


def remove(data: Path) -> None:
    """Remove the PIN. Call `check` first."""
    (data / _FILE).unlink(missing_ok=True)


def _hash(pin: str, salt: str, rounds: int) -> str:
    return hashlib.pbkdf2_hmac("sha256", pin.encode(), bytes.fromhex(salt), rounds).hex()


def _read(data: Path) -> dict[str, Any]:
    """The stored values. A damaged file stays locked, so that damaging it is no way in."""
    try:
        kept = json.loads((data / _FILE).read_text(encoding="utf-8"))
        if isinstance(kept, dict) and {"salt", "rounds", "hash"} <= kept.keys():
            return kept
    except (OSError, ValueError):
        pass
    raise SettingsError("lock.broken", path=str(data / _FILE))


def _write(data: Path, kept: dict[str, Any]) -> None:
    write_private(data / _FILE, json.dumps(kept))
