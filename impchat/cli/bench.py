"""`impchat bench`: measures a model on this machine.

In: the data folder and parsed arguments. Out: a table on stdout, progress on stderr if that is a terminal, a JSON file
and a plot if they are wanted, exit codes. Everything that can be wrong with the arguments is checked before measuring.
This file does not know how anything is measured.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from impchat import app, texts
from impchat.bench import chat, peers, plot, report, resources, table, users
from impchat.bench.asking import Tell
from impchat.bench.report import Figure, Report, Spread, Unit
from impchat.bundle import Bundle
from impchat.cli.terminal import Terminal, printable
from impchat.errors import SettingsError
from impchat.texts import size


def run(data: Path, model: str | None, screen: Terminal, args: argparse.Namespace) -> int:
    """Run the benchmark `args.action` and return the exit code. `model`: the value of --model."""
    bundle = app.choose_bundle(data, model)
    old = _old(args)
    target, picture = (_target(path) for path in (args.json, args.plot))
    if picture:
        plot.check()
    measure = _work(bundle, args)
    about = _about(bundle, args.rounds)
    if resources.is_busy():
        screen.note("bench.busy")
    with _watching(screen) as tell:
        found = Report(args.action, bundle.id, tuple(measure(bundle, args.rounds, tell)), about)
    try:
        if target:
            with _writing(target):
                report.save(found, target)
    finally:
        _show(screen, bundle, found, old)
    if picture:
        with _writing(picture):
            plot.draw(found, old, picture, partial(_label, "en"))
    return 0


def _work(bundle: Bundle, args: argparse.Namespace) -> Callable[[Bundle, int, Tell], list[Figure]]:
    """The benchmark `args.action`. Raises as `peers.prepare`."""
    if args.action != "peers":
        return {"table": table.run, "chat": chat.run, "users": users.run}[args.action]
    folder, mmproj = (Path(os.path.expanduser(path)) if path else None for path in (args.peers, args.mmproj))
    return partial(peers.run, peers=peers.prepare(bundle, folder, mmproj))


# Arguments


def _old(args: argparse.Namespace) -> Report | None:
    """The report of --compare. Raises as `report.load`, and SettingsError "bench.other_work"."""
    if args.compare is None:
        return None
    old = report.load(Path(os.path.expanduser(args.compare)))
    if old.work != args.action:
        raise SettingsError("bench.other_work", path=args.compare, work=printable(old.work))
    return old


def _target(path: str | None) -> Path | None:
    """A file to write later. Raises SettingsError "file.unwritable" if that cannot work, before minutes are spent."""
    if path is None:
        return None
    target = Path(os.path.expanduser(path))
    code = errno.EISDIR if target.is_dir() else 0 if target.parent.is_dir() else errno.ENOENT
    if not code and not os.access(target.parent, os.W_OK):
        code = errno.EACCES
    if code:
        raise SettingsError("file.unwritable", path=path, detail=os.strerror(code))
    return target


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SettingsError("file.unwritable", path=str(path), detail=exc.strerror or exc) from exc


def _about(bundle: Bundle, rounds: int) -> dict[str, Any]:
    from impchat.engines.local.tuning import threads_for

    return resources.machine() | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": threads_for(bundle),
        "rounds": rounds,
        "bytes": bundle.size_bytes,
        "language": bundle.files["language"].type,
    }


# Output


@contextmanager
def _watching(screen: Terminal) -> Iterator[Tell]:
    """Show the step that is running on stderr if that is a terminal. Notes are printed in any case."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    with console.status("") as status:

        def tell(key: str, **values: Any) -> None:
            if key.startswith("bench.step."):
                status.update(screen.text(key, **values))
            else:
                screen.note(key, **values)

        yield tell


def _show(screen: Terminal, bundle: Bundle, found: Report, old: Report | None) -> None:
    about = found.about
    head = {"model": bundle.id, "size": size(bundle.size_bytes), "processor": about["processor"]}
    print(printable(screen.text("bench.head", threads=about["threads"], rounds=about["rounds"], **head)))
    together = report.pairs(found.figures)
    if together:
        _show_pairs(screen, together)
        screen.note("bench.best_flags")
        if unequal := _unequal(screen, found.figures):
            screen.note("bench.unequal", names="; ".join(unequal))
    if old and old.model != found.model:
        screen.note("bench.other_model", model=printable(old.model))
    if old or not together:
        _show_figures(screen, found, old)
    if found.work == "table" and all(figure.name != "rss_anon" for figure in found.figures):
        screen.note("bench.no_memory")


def _show_figures(screen: Terminal, found: Report, old: Report | None) -> None:
    """A line for each figure, with its ratio to the figure of `old`."""
    before = {figure.key: figure for figure in old.figures} if old else {}
    rows = []
    for figure in found.figures:
        row = [_label(screen.language, figure), _value(figure.median, figure.unit), _range(screen, figure)]
        if old:
            earlier = before.get(figure.key)
            row.append(_value(earlier.median, earlier.unit) if earlier else "")
            row.append(_ratio(screen, report.compared(figure, earlier)) if earlier else "")
        rows.append(row)
    columns = ("figure", "median", "spread", *(("old", "ratio") if old else ()))
    _print(screen, columns, rows)


def _show_pairs(screen: Terminal, pairs: list[tuple[Figure, Figure]]) -> None:
    """A line for each figure of another program, with ImpChat's ratio to it."""
    rows, last = [], None
    for ours, theirs in pairs:
        first = ours.key != last
        rows.append(
            [
                _label(screen.language, ours) if first else "",
                _value(ours.median, ours.unit) if first else "",
                theirs.program,
                _value(theirs.median, theirs.unit),
                _ratio(screen, report.paired(ours, theirs)),
            ]
        )
        last = ours.key
    _print(screen, ("figure", "ours", "program", "theirs", "pair"), rows)


def _unequal(screen: Terminal, figures: Sequence[Figure]) -> list[str]:
    """The figures whose prompts did not have equally many tokens in all programs."""
    counts: dict[tuple[str, str], set[tuple[float, ...]]] = {}
    for figure in figures:
        if figure.unit == "tokens" and figure.program:
            counts.setdefault((figure.name.removesuffix("_prompt"), figure.case), set()).add(figure.values)
    named = [key for key, values in counts.items() if len(values) > 1]
    return [screen.text(f"bench.figure.{name}", case=case) for name, case in named]


def _print(screen: Terminal, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table

    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        drawn.add_column(screen.text(f"bench.column.{column}"))
    for row in rows:
        drawn.add_row(*map(printable, row))
    screen.table(drawn, width=None if sys.stdout.isatty() else 200)  # in a pipe, lines are not wrapped


def _label(language: str, figure: Figure) -> str:
    label = texts.say(f"bench.figure.{figure.name}", language, case=figure.case)
    return label if figure.program in ("", report.OURS) else f"{label} ({figure.program})"


def _range(screen: Terminal, figure: Figure) -> str:
    if len(figure.values) == 1:
        return ""
    found = report.spread(figure)
    least, most = (_number(value, figure.unit) for value in (found.least, found.most))
    return screen.text("bench.range", least=least, most=most)


def _ratio(screen: Terminal, ratio: Spread | None) -> str:
    if ratio is None:
        return ""
    median, least, most = (f"{value:.3g}" for value in (ratio.median, ratio.least, ratio.most))
    return median if least == most else f"{median} ({screen.text('bench.range', least=least, most=most)})"


def _value(value: float, unit: Unit) -> str:
    return f"{_number(value, unit)} {_SIGNS[unit]}".rstrip()


_SIGNS: dict[Unit, str] = {
    "s": "s",
    "tokens/s": "tokens/s",
    "tokens": "tokens",
    "bytes": "MB",
    "bytes/s": "GB/s",
    "share": "%",
    "times": "",
}


def _number(value: float, unit: Unit) -> str:
    match unit:
        case "s":
            return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
        case "tokens/s":
            return f"{value:.1f}"
        case "tokens":
            return f"{value:.0f}"
        case "bytes":
            return f"{value / 1e6:.0f}"
        case "bytes/s":
            return f"{value / 1e9:.1f}"
        case "share":
            return f"{100 * value:.1f}"
        case "times":
            return f"{value:.2f}"
