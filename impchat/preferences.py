"""What a person has chosen for this installation: language, looks, sampling, how the model is run.

In: the data folder. Out: `Preferences`, and the same written back, whole, for the owner alone to read.
This file does not know who asks nor what follows from a choice.
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
    """Every field has a default that suits a new installation."""

    language: str = ""  # of `texts.LANGUAGES`; "": that of the system
    theme: Theme = "system"
    sampling: Mapping[str, float] = field(default_factory=dict)  # name of a field of Sampling -> value, where chosen
    threads: int | None = None  # None: as many as suit the model
    context_tokens: int | None = None  # None: the model's own
    conversation: str = ""  # the one open last
    servers: Mapping[str, str] = field(
        default_factory=dict
    )  # conversation ("": new ones) -> id of the server chosen; "": the model here

    def sampling_of(self, recommended: Sampling) -> Sampling:
        """What the model recommends, with what was chosen in its place."""
        whole = ("top_k", "max_tokens", "seed")
        chosen: dict[str, Any] = {n: int(v) if n in whole else float(v) for n, v in self.sampling.items()}
        return replace(recommended, **chosen)


def load(data: Path) -> Preferences:
    """What is kept in the data folder `data`; a value that cannot be used counts as never chosen."""
    try:
        values = json.loads((data / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    good = {name: value for name, value in values.items() if _usable(name, value)} if isinstance(values, dict) else {}
    return Preferences(**good)


def save(data: Path, preferences: Preferences) -> None:
    """Keep `preferences`. Raises HistoryError "data.unwritable"."""
    write_private(data / _FILE, json.dumps(asdict(preferences), ensure_ascii=False, indent=1))


def write_private(path: Path, text: str) -> None:
    """Put a small file at its place, whole, readable by its owner alone. Raises HistoryError "data.unwritable"."""
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
        case "servers":
            return isinstance(value, dict) and all(isinstance(id, str) for id in value.values())
        case _:
            return name in {f.name for f in fields(Preferences)} and isinstance(value, str)


def in_range(name: str, value: Any) -> bool:
    """Whether `value` may be chosen for the field `name` of Sampling."""
    low, high = settings.SAMPLING_RANGES.get(name, (1, 0))
    return type(value) in (int, float) and low <= value <= high
