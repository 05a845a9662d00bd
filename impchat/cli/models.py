"""`impchat models`: list, get, add, choose, check, describe and remove models.

In: the data folder and parsed arguments. Out: a table or lines on stdout, progress on stderr if that is a terminal,
exit codes.
This file does not know how a model is downloaded, converted or run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import app, machine, paths
from impchat import bundle as bundles
from impchat.bundle import Bundle
from impchat.cli.terminal import Terminal, printable
from impchat.errors import ModelError, SettingsError
from impchat.models import catalog, library, measured, verified
from impchat.models.catalog import Entry
from impchat.models.library import Model
from impchat.texts import size

if TYPE_CHECKING:
    from impchat.models.download import Progress, Watch


def run(data: Path, model: str | None, screen: Terminal, args: argparse.Namespace) -> int:
    """Run the action `args.action` and return the exit code. `model`: the value of --model. Raises ModuleNotFoundError
    if packages of the extra `convert` are missing."""
    match args.action:
        case "list":
            return _list(data, model, screen)
        case "pull":
            return _pull(data, screen, args)
        case "add":
            return _add(data, screen, args)
        case "use":
            return _use(data, screen, args)
        case "rm":
            return _remove(data, screen, args)
        case "verify":
            return _verify(data, screen, args)
        case _:
            return _info(data, screen, args)


# list and info


def _list(data: Path, model: str | None, screen: Terminal) -> int:
    from rich.table import Table

    running = problem = None
    try:
        running = app.choose_bundle(data, model)
    except ModelError as exc:
        problem = exc
    rows = library.models(data)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("id", "name", "size", "memory", "state"):
        wraps = column in ("memory", "state")  # in a narrow terminal
        title = screen.text(f"models.{column}")
        table.add_column(f"  {title}" if column == "id" else title, no_wrap=not wraps)
    here = machine.memory()
    for row in rows:
        runs = running is not None and row.bundle is not None and row.bundle.path == running.path
        fits = here.fits(row.memory_bytes) if here else "unknown"
        memory = screen.text(f"models.memory_{fits}", size=size(row.memory_bytes))
        table.add_row(
            f"{'▶' if runs else ' '} {row.id}", printable(row.name), _size(row), memory, _state(row, runs, screen)
        )
    screen.table(table, width=None if sys.stdout.isatty() else 200)  # in a pipe, lines are not wrapped
    if running and all(row.bundle is None or row.bundle.path != running.path for row in rows):
        screen.note("models.elsewhere", name=running.name, path=running.path)
    if problem:
        screen.error(problem)
    return 0


def _size(row: Model) -> str:
    if row.disk_bytes:
        return size(row.disk_bytes)
    return f"({size(row.entry.bundle_bytes)})" if row.entry and row.entry.bundle_bytes else ""


def _state(row: Model, runs: bool, screen: Terminal) -> str:
    if row.problem:
        return screen.text("models.state_broken")
    if row.unfinished:
        return screen.text("models.state_unfinished", model=row.unfinished)
    if row.bundle:
        unverified = bool(row.bundle.unverified)
        state = ("running_unverified" if runs else "unverified") if unverified else "running" if runs else "here"
        return screen.text(f"models.state_{state}")
    return screen.text("models.state_there", size=size(row.entry.download_bytes if row.entry else 0))


def _info(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    row = library.find(data, args.id)
    for key, value in _facts(row, screen):
        print(f"{screen.text(f'models.{key}')}: {printable(str(value))}")
    if row.bundle:
        _warn(row.bundle, screen)
    if row.problem:
        screen.error(row.problem)
    return 0


def _facts(row: Model, screen: Terminal) -> Iterator[tuple[str, Any]]:
    bundle, entry = row.bundle, row.entry
    yield "id", row.id
    yield "name", row.name
    if known := bundle or entry:
        yield "licence", known.licence
        yield "source", known.source
        yield "family", f"{known.family} ({known.template})"
        yield "context", known.context_tokens
        s = known.sampling
        yield "sampling", f"temperature {s.temperature}, top_k {s.top_k}, top_p {s.top_p}, min_p {s.min_p}"
    if entry and entry.parameters:
        yield "parameters", screen.text("models.billions", count=f"{entry.parameters / 1e9:.2f}")
        yield "download", size(entry.download_bytes)
    if bundle:
        image = bundle.image
        yield "image", screen.text("models.image_value", side=image.size, aspect=image.aspect, tokens=image.tokens)
        yield "revision", bundle.revision
        yield "path", bundle.path
        for key, file in bundle.files.items():
            yield "file", f"{file.name} ({key}, {file.type}, {size(file.bytes)}, sha256 {file.sha256})"
        for key, values in measured.lines(bundle):
            yield "figure", screen.text(key, **values)
    if row.disk_bytes:
        yield "size", size(row.disk_bytes)
    if row.memory_bytes:
        yield "memory", size(row.memory_bytes)
    yield "state", _state(row, False, screen)


# pull


def _pull(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    from impchat.models.download import pull

    entry = catalog.find(args.id)
    paths.ensure_data_dir(data)
    if not library.is_accepted(data, entry.licence):
        _ask_licence(entry, screen, args.accept_licence)
        library.accept(data, entry.licence)
    types = {"language": args.type, "vision": args.vision}
    try:
        with _watching(screen) as watch:
            bundle = pull(entry, data, keep_source=args.keep_source, watch=watch, **types)
    except KeyboardInterrupt:
        screen.note("models.stopped", model=args.id)
        raise
    screen.note("models.ready", name=bundle.name, path=bundle.path, size=size(bundle.size_bytes))
    if args.keep_source:
        screen.note("models.kept", path=paths.checkpoints_dir(data) / entry.id)
    _offer(data, bundle, screen)
    return 0


def _offer(data: Path, bundle: Bundle, screen: Terminal) -> None:
    """Choose a new verified model if no model has been chosen yet; otherwise print how to choose it."""
    _warn(bundle, screen)
    if bundle.unverified and not library.is_permitted(data, bundle):
        screen.note("models.choose_unverified", model=bundle.id)
    elif library.chosen(data) in (None, bundle.id):
        library.choose(data, bundle.id)
        screen.note("models.runs", name=bundle.name)
    else:
        screen.note("models.choose", model=bundle.id)


def _ask_licence(entry: Entry, screen: Terminal, accepted: bool) -> None:
    """Show the licence. Raises SettingsError unless it is accepted, by option or by typing."""
    screen.note("models.terms", name=entry.name, source=entry.source, licence=entry.licence)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise SettingsError("licence.unaccepted", model=entry.name)
    if not screen.confirm("models.accept"):
        raise SettingsError("licence.refused", model=entry.name)


@contextmanager
def _watching(screen: Terminal) -> Iterator[Watch]:
    """Show progress on stderr if that is a terminal; otherwise print a line for each file that is converted."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:

        def line(step: Progress) -> None:
            if step.stage != "fetch":
                screen.note(f"models.step_{step.stage}", file=step.file)

        yield line
        return
    words = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), words)
    with Bar(*columns, console=console) as bar:

        def draw(step: Progress) -> None:
            said = screen.text(f"models.step_{step.stage}", file=printable(step.file))
            if not bar.tasks:  # bytes from earlier runs would distort the speed
                bar.add_task(said, total=step.total, completed=step.done)
            bar.update(bar.tasks[0].id, completed=step.done, description=said)

        yield draw


# add, use, rm, verify


def _add(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    from impchat.models.add import add

    language, mmproj = (Path(os.path.expanduser(p)) for p in (args.gguf, args.mmproj))
    id = args.id or language.stem
    target = paths.models_dir(paths.ensure_data_dir(data)) / id
    bundle = add(language, mmproj, target, id=id, template=args.template)
    screen.note("models.ready", name=bundle.name, path=bundle.path, size=size(bundle.size_bytes))
    _offer(data, bundle, screen)
    return 0


def _use(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    bundle = library.choose(data, args.id, unverified=args.unverified)
    screen.note("models.runs", name=bundle.name)
    if other := os.environ.get("IMPCHAT_MODEL"):
        screen.note("models.overruled", model=other)
    return 0


def _remove(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    row = library.find(data, args.id)
    if not args.yes and row.disk_bytes:
        if not sys.stdin.isatty():
            raise SettingsError("delete.unconfirmed")
        if not screen.confirm("models.confirm", name=printable(row.name), size=size(row.disk_bytes)):
            screen.note("models.kept_all")
            return 1
    freed = library.remove(data, args.id, chosen_too=args.in_use)
    screen.note("models.removed", name=row.name, size=size(freed))
    return 0


def _verify(data: Path, screen: Terminal, args: argparse.Namespace) -> int:
    bundle = library.locate(data, args.id)
    verified.verify(data, bundle, reread=True)
    screen.note("models.whole", name=bundle.name)
    try:
        from impchat.models.convert import verify

        found = verify.measured(bundle, Path(os.path.expanduser(args.source)) if args.source else None)
    except ModuleNotFoundError:
        if args.source:
            raise
        return 0  # only the files can be checked without the packages of `convert`
    if found.unverified != bundle.unverified:
        with bundles.writing(bundle.path):
            bundles.write_manifest(found)
    for key, values in measured.lines(found):
        print(printable(screen.text(key, **values)))
    if found.unverified:
        raise ModelError("model.unverified", name=found.name, model=args.id, figures=found.unverified)
    if bundle.unverified:
        screen.note("models.verified", name=found.name)
    _warn(found, screen)
    return 0


def _warn(bundle: Bundle, screen: Terminal) -> None:
    for key, values in measured.warnings(bundle):
        screen.note(key, **values)
