"""The settings of this installation: language, theme, sampling, how the model runs.

In: the data folder. Out: `Preferences`, and the file written atomically, readable by its owner only.
This file does not know who uses them, or what follows from a choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from impchat import paths, settings
from impchat.errors import HistoryError
from impchat.files import write_atomic
from impchat.messages import Sampling
from impchat.texts import LANGUAGES

_FILE = "preferences.json"
Theme = Literal["system", "light", "dark"]


@dataclass(frozen=True, slots=True)
class Preferences:
    """Every field has a default for a new installation."""

    language: str = ""  # one of `texts.LANGUAGES`; "": the system's
    theme: Theme = "system"
    sampling: Mapping[str, float] = field(default_factory=dict)  # field of Sampling -> chosen value; only changed ones
    threads: int | None = None  # None: chosen to suit the model
    context_tokens: int | None = None  # None: the model's
    reads_typed: bool = True  # the model reads a question while it is being typed
    conversation: str = ""  # the one opened last
    servers: Mapping[str, str] = field(
        default_factory=dict
    )  # conversation ("": new ones) -> id of the chosen server; "": the local model

    def sampling_of(self, recommended: Sampling) -> Sampling:
        """The recommended values, with the chosen ones replaced."""
        whole = ("top_k", "max_tokens", "seed")
        chosen: dict[str, Any] = {n: int(v) if n in whole else float(v) for n, v in self.sampling.items()}
        return replace(recommended, **chosen)


def load(data: Path) -> Preferences:
    """The preferences in the data folder `data`; unusable values get their defaults."""
    try:
        values = json.loads((data / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    good = {name: value for name, value in values.items() if _usable(name, value)} if isinstance(values, dict) else {}
    return Preferences(**good)


def save(data: Path, preferences: Preferences) -> None:
    """Save `preferences`. Raises HistoryError "data.unwritable"."""
    write_private(data / _FILE, json.dumps(asdict(preferences), ensure_ascii=False, indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a small file atomically, readable by its owner only. Raises HistoryError "data.unwritable"."""
    try:
        paths.ensure_data_dir(path.parent)
        write_atomic(path, f"{text}\n".encode())
    except OSError as exc:
        raise HistoryError("data.unwritable", path=str(path)) from exc


def _usable(name: str, value: Any) -> bool:
    match name:
        case "language":
            return value == "" or value in LANGUAGES
        case "theme":
            return value in get_args(Theme)
        case "sampling":
            return isinstance(value, dict) and all(in_range(key, number) for key, number in value.items())
        case "threads" | "context_tokens":
            return value is None or (type(value) is int and value > 0)
        case "reads_typed":
            return isinstance(value, bool)
        case "servers":
            return isinstance(value, dict) and all(isinstance(id, str) for id in value.values())
        case _:
            return name in {f.name for f in fields(Preferences)} and isinstance(value, str)


def in_range(name: str, value: Any) -> bool:
    """Whether `value` is allowed for the field `name` of Sampling."""
    low, high = settings.SAMPLING_RANGES.get(name, (1, 0))
    return type(value) in (int, float) and low <= value <= high
