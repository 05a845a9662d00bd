"""A report as a picture, with matplotlib.

In: a report and the label of each figure. Out: a PNG file. The labels should be English: matplotlib's own font has no
Chinese characters.
This file does not know how anything was measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from impchat import texts
from impchat.bench.report import Figure, Report, Spread, Unit, paired, pairs, spread
from impchat.errors import SettingsError

_COLOURS = ("#b4421d", "#b3adbb")  # ours, the earlier report's


def check() -> None:
    """Raises SettingsError "extra.missing" if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SettingsError("extra.missing", command="--plot", package="matplotlib", install=texts.install("bench"))


def draw(report: Report, old: Report | None, path: Path, label: Callable[[Figure], str]) -> None:
    """Draw the medians with their spread, one panel for each unit, next to those of `old`; for figures of several
    programs, ImpChat's ratio to each of them. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    panels = [*_ratios(report, label), *_panels(report, old, label)]
    heights = [len(rows) for _, rows, _ in panels]
    canvas = Canvas(figsize=(10, 1.2 * len(panels) + 0.32 * sum(heights)), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, rows, line) in zip(axes, panels, strict=True):
        _draw_panel(axis, title, rows, line)
    canvas.suptitle(f"impchat bench {report.work}: {report.model}{' (grey: earlier report)' if old else ''}")
    canvas.savefig(path, format="png", dpi=130)


_Row = tuple[str, list[Spread | None]]
_Panel = tuple[str, list[_Row], float | None]  # title, rows, where to draw a line


def _ratios(report: Report, label: Callable[[Figure], str]) -> list[_Panel]:
    rows: list[_Row] = []
    for ours, theirs in pairs(report.figures):
        rows.append((f"{label(ours)}: {theirs.program}", [paired(ours, theirs)]))
    return [("ImpChat / program", rows, 1.0)] if rows else []


def _panels(report: Report, old: Report | None, label: Callable[[Figure], str]) -> list[_Panel]:
    before = {figure.key: figure for figure in old.figures} if old else {}
    units: dict[Unit, list[_Row]] = {}
    for figure in report.figures:
        if figure.program:
            continue
        shown = [spread(figure)] + ([spread(before[figure.key])] if figure.key in before else [])
        units.setdefault(figure.unit, []).append((label(figure), [*shown]))
    return [(unit, rows, None) for unit, rows in units.items()]


def _draw_panel(axis: Any, title: str, rows: list[_Row], line: float | None) -> None:
    for at, (_, spreads) in enumerate(rows):
        for n, each in enumerate(spreads):
            if each is None:
                continue
            place, error = at + 0.38 * n, [[each.median - each.least], [each.most - each.median]]
            axis.barh(place, each.median, height=0.36, color=_COLOURS[n], xerr=error, capsize=2)
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_title(title, fontsize=9, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    if line is not None:
        axis.axvline(line, color="#625d68", linewidth=0.8)
