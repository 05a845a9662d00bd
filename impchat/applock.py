"""The app lock: a PIN, kept as a slow hash, with few tries.

In: the data folder and digits that a person types. Out: whether they are the PIN; how long to wait after wrong ones.
Each try is written down before it is judged, so that ending the program gives none back.
This file keeps other people out of the app, not out of the disk: what is stored is not encrypted by it.
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
    """Whether the data folder `data` is locked by a PIN. A lock file that cannot be read locks too."""
    return (data / _FILE).exists()


def examine(pin: str) -> None:
    """Whether `pin` may be one. Raises SettingsError "lock.pin" if it is not 4 to 12 digits."""
    if not (settings.PIN_DIGITS[0] <= len(pin) <= settings.PIN_DIGITS[1] and pin.isascii() and pin.isdigit()):
        raise SettingsError("lock.pin", least=settings.PIN_DIGITS[0], most=settings.PIN_DIGITS[1])


def set_pin(data: Path, pin: str) -> None:
    """Lock with `pin` from now on. Raises as `examine`, and HistoryError "data.unwritable"."""
    examine(pin)
    salt = secrets.token_hex(16)
    _write(data, {"salt": salt, "rounds": settings.PIN_ROUNDS, "hash": _hash(pin, salt, settings.PIN_ROUNDS)})


def check(data: Path, pin: str, now: Callable[[], float] = time.time) -> None:
    """Return where `pin` is right. `now`: seconds on the clock.

    Raises SettingsError "lock.wrong" or, for the rest of the pause after too many wrong ones, "lock.wait"."""
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
    """Seconds until the next try is allowed; 0: it is. Each wrong PIN behind the allowed ones doubles the pause."""
    kept = _read(data)
    over = int(kept.get("wrong", 0)) - settings.PIN_TRIES
    if over < 0:
        return 0
    pause: int = min(settings.PIN_PAUSE_S << min(over, 20), settings.PIN_PAUSE_MOST_S)
    passed = now() - float(kept.get("last", 0))
    return max(0, round(pause - passed)) if passed >= 0 else pause  # a clock set back gains nothing


def remove(data: Path) -> None:
    """No PIN any more. Ask for it first: `check`."""
    (data / _FILE).unlink(missing_ok=True)


def _hash(pin: str, salt: str, rounds: int) -> str:
    return hashlib.pbkdf2_hmac("sha256", pin.encode(), bytes.fromhex(salt), rounds).hex()


def _read(data: Path) -> dict[str, Any]:
    """What is kept. A file that is damaged locks for good: nobody gets in by damaging it."""
    try:
        kept = json.loads((data / _FILE).read_text(encoding="utf-8"))
        if isinstance(kept, dict) and {"salt", "rounds", "hash"} <= kept.keys():
            return kept
    except (OSError, ValueError):
        pass
    raise SettingsError("lock.broken", path=str(data / _FILE))


def _write(data: Path, kept: dict[str, Any]) -> None:
    write_private(data / _FILE, json.dumps(kept))
