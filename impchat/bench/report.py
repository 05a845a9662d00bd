"""The result of a benchmark: named figures with one value for each round, as a JSON file and compared with another.

In: figures. Out: a `Report`, its JSON, and ratios with their spread.
This file does not know how anything is measured, or the sentences for names.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from impchat import files
from impchat.errors import SettingsError

FORMAT = 1  # increased when older versions can no longer read a report
OURS = "impchat"  # `Figure.program` of ImpChat itself

Unit = Literal["s", "tokens/s", "tokens", "bytes", "bytes/s", "share", "times"]
"""share: a part of 1. times: a ratio of two figures of the same run."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity. `name`, `case` and `program` identify it in reports of different runs."""

    name: str  # the text "bench.figure.<name>" describes it
    unit: Unit
    values: tuple[float, ...]  # one for each round, at least one
    case: str = ""  # which of several: a number of people, a depth in tokens
    program: str = ""  # the program that was measured, if a benchmark measures several

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.case, self.program

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of a quantity, and its smallest and largest value."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run."""

    work: str  # the subcommand
    model: str  # the id of the bundle
    figures: tuple[Figure, ...]
    about: Mapping[str, Any] = field(default_factory=dict)  # the machine and the conditions; not compared


class Collector:
    """Collects values round by round; the figures have the order of the first round."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, Unit, str, str], list[float]] = {}

    def add(self, name: str, value: float, unit: Unit = "s", *, case: str = "", program: str = "") -> None:
        self._values.setdefault((name, unit, case, program), []).append(value)

    @property
    def figures(self) -> list[Figure]:
        return [
            Figure(name, unit, tuple(values), case, program)
            for (name, unit, case, program), values in self._values.items()
        ]


def spread(figure: Figure) -> Spread:
    return Spread(figure.median, min(figure.values), max(figure.values))


def paired(ours: Figure, theirs: Figure) -> Spread | None:
    """`ours` / `theirs`, measured in the same rounds: the median, smallest and largest ratio of a round. None if a
    value of `theirs` is 0."""
    pairs = list(zip(ours.values, theirs.values, strict=False))
    if not all(b for _, b in pairs):
        return None
    ratios = [a / b for a, b in pairs]
    return Spread(statistics.median(ratios), min(ratios), max(ratios))


def pairs(figures: Sequence[Figure]) -> list[tuple[Figure, Figure]]:
    """Each figure of ImpChat with the same figure of another program, in the order of ImpChat's. Without counts of
    tokens, which should be equal."""
    ours = {(figure.name, figure.case): figure for figure in figures if figure.program == OURS}
    others = [figure for figure in figures if figure.program not in ("", OURS) and figure.unit != "tokens"]
    return [(mine, other) for key, mine in ours.items() for other in others if (other.name, other.case) == key]


def compared(new: Figure, old: Figure) -> Spread | None:
    """`new` / `old`, measured in different runs: the ratio of the medians, and the smallest and largest ratio of any
    two values. None if a value of `old` is 0."""
    if not all(old.values):
        return None
    least, most = min(new.values) / max(old.values), max(new.values) / min(old.values)
    return Spread(new.median / old.median, least, most)


def save(report: Report, path: Path) -> None:
    """Write the report as JSON. Raises OSError."""
    text = json.dumps({"format": FORMAT} | asdict(report), ensure_ascii=False, indent=1)
    files.write_atomic(path, f"{text}\n".encode())


def load(path: Path) -> Report:
    """The report in the file `path`.

    Raises SettingsError "file.unreadable", "bench.not_a_report", "bench.newer"."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        detail = getattr(exc, "strerror", None) or exc
        raise SettingsError("file.unreadable", path=str(path), detail=detail) from exc
    try:
        values = json.loads(text)
        version = values["format"]
        if isinstance(version, int) and version > FORMAT:
            raise SettingsError("bench.newer", path=str(path))
        figures = tuple(_figure(each) for each in values["figures"])
        return Report(str(values["work"]), str(values["model"]), figures, dict(values["about"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise SettingsError("bench.not_a_report", path=str(path)) from exc


def _figure(values: Any) -> Figure:
    measured = tuple(float(value) for value in values["values"])
    if not measured or not all(0 <= value < math.inf for value in measured) or values["unit"] not in get_args(Unit):
        raise ValueError("not a figure")
    return Figure(
        str(values["name"]), values["unit"], measured, str(values.get("case", "")), str(values.get("program", ""))
    )
