"""`impchat doctor --tune`: measures which settings run the model fastest on this machine, and stores them.

In: the data folder, and a model's name or path. Out: the stored result, tables on stdout, progress on stderr.
This file does not know how the settings are measured or chosen.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from impchat import app, machine, paths
from impchat.cli import doctor
from impchat.cli.terminal import Terminal, printable
from impchat.engines.local import tuner, tuning
from impchat.engines.local.tuner import Result, Step, Watch
from impchat.models import library
from impchat.texts import size


def run(data: Path, model: str | Path | None, screen: Terminal) -> int:
    """Measure, store the result, print it and return the exit code. If it is interrupted, nothing is stored.

    Raises ModelError as `app.choose_bundle` and `Bundle.verify`, HistoryError "data.unwritable", EngineError and
    ModelError as `tuner.measure`."""
    paths.ensure_data_dir(data)
    bundle = app.choose_bundle(data, model)
    bundle.verify()
    screen.note("tune.begins", name=bundle.name)
    if not machine.is_quiet():
        screen.note("tune.busy")
    may_repack = library.may_repack(bundle)
    if not may_repack:
        screen.note("tune.no_room", size=size(bundle.files["language"].bytes))
    try:
        with _watching(screen) as watch:
            result = tuner.measure(bundle, may_repack=may_repack, watch=watch)
    except KeyboardInterrupt:
        screen.note("tune.stopped")
        raise
    file = tuning.save(data, bundle, result.tuning, (*result.words, *result.eyes))
    _print(result, screen)
    for finding in doctor.tuned(data, bundle):
        print(printable(finding.sentence(screen.language)))
    screen.note("tune.stored", path=file)
    return 0


@contextmanager
def _watching(screen: Terminal) -> Iterator[Watch]:
    """Show a progress bar on stderr if that is a terminal; otherwise print a line for each step."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    def line(step: Step) -> str:
        return screen.text(f"tune.step_{step.part}", number=step.number, total=step.total)

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield lambda step: screen.note(f"tune.step_{step.part}", number=step.number, total=step.total)
        return
    words = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), TimeElapsedColumn(), words, console=console, transient=True) as bar:
        task = bar.add_task("")
        yield lambda step: bar.update(task, completed=step.number - 1, total=step.total, description=line(step))


def _print(result: Result, screen: Terminal) -> None:
    """Print the figures of every combination; ▶ marks the chosen one."""
    from rich.table import Table

    def mark(chosen: bool, value: bool) -> str:
        return f"{'▶' if chosen else ' '} {screen.text('doctor.on' if value else 'doctor.off')}"

    chosen = result.tuning
    width = None if sys.stdout.isatty() else 200  # in a pipe, lines are not wrapped
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for key in ("flash", "repacked", "threads", "reads", "generates", "question", "memory"):
        title = screen.text(f"tune.{key}")
        table.add_column(f"  {title}" if key == "flash" else title, justify="left" if key == "flash" else "right")
    for found in result.words:
        settings = (found.flash_attention, found.repacked, found.threads)
        table.add_row(
            mark(settings == (chosen.flash_attention, chosen.repacked, chosen.threads), found.flash_attention),
            mark(False, found.repacked),
            str(found.threads),
            f"{found.read_tokens_s:.1f}",
            f"{found.generate_tokens_s:.1f}",
            f"{found.seconds:.2f}",
            size(found.memory_bytes) if found.memory_bytes else "",
        )
    screen.table(table, width)
    if not result.eyes:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for key in ("packed", "threads", "picture", "memory"):
        title = screen.text(f"tune.{key}")
        table.add_column(f"  {title}" if key == "packed" else title, justify="left" if key == "packed" else "right")
    for sight in result.eyes:
        table.add_row(
            mark((sight.packed, sight.threads) == (chosen.packed, chosen.vision_threads), sight.packed),
            str(sight.threads),
            f"{sight.seconds:.2f}",
            size(sight.memory_bytes) if sight.memory_bytes else "",
        )
    screen.table(table, width)
