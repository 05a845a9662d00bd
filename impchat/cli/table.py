"""`impchat ask --table`: one question about many pictures, into a CSV file and an HTML page.

In: an App, files and folders, a question. Out: the two files, a line on stdout for each answer, progress on stderr, an
exit code.
This file does not know how a table is written or a question asked (`table`, `batch`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from impchat import images, settings
from impchat.app import App
from impchat.batch import Batch, Item
from impchat.cli.terminal import EXIT_ERROR, EXIT_STOPPED, Terminal, printable, read_file, read_picture
from impchat.errors import ImpChatError, SettingsError
from impchat.messages import Sampling
from impchat.table import TableFile, natural

_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".avif", ".heic", ".heif", ".bmp", ".tif", ".tiff")
_HEAD = 64  # bytes of a file that show its format


@dataclass(frozen=True, slots=True)
class Found:
    """Pictures in natural order without duplicates, and the number of files that are not pictures."""

    pictures: tuple[str, ...]
    skipped: int


def find(paths: Sequence[str], recursive: bool) -> Found:
    """The pictures among the files and in the folders `paths`; with `recursive` also in the folders below these. Hidden
    files are skipped without being counted. A picture is recognised by the end of its name or by its first bytes, so
    that a damaged one is not passed over.

    Raises SettingsError "file.unreadable" for a path that cannot be read."""
    files = dict.fromkeys(os.path.normpath(file) for path in paths for file in _files(path, recursive))
    pictures = [file for file in files if _is_picture(file)]
    return Found(tuple(sorted(pictures, key=natural)), len(files) - len(pictures))


def _files(path: str, recursive: bool) -> Iterator[str]:
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        if not os.path.exists(path):
            read_file(path)  # raises; a pipe that exists must not be opened twice
        yield path
        return

    def unreadable(error: OSError) -> None:
        raise SettingsError("file.unreadable", path=error.filename or path, detail=error.strerror or error) from error

    for folder, folders, names in os.walk(path, onerror=unreadable):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for file in (os.path.join(folder, name) for name in names if not name.startswith(".")):
            if os.path.isfile(file) or not os.path.exists(file):  # no socket or device; a broken link gets a row
                yield file


def _is_picture(file: str) -> bool:
    if file.lower().endswith(_SUFFIXES) or not os.path.isfile(file):
        return True
    try:
        return images.is_picture(read_file(file, _HEAD))
    except SettingsError:
        return False


def target(path: str) -> Path:
    """The CSV file that `--table` names; its page has the same name with ".html"."""
    named = Path(os.path.expanduser(path))
    if named.suffix.lower() in (".csv", ".html"):
        return named.with_suffix(".csv")
    return named.with_name(f"{named.name}.csv") if named.name else named


def ask(app: App, screen: Terminal, table: TableFile, found: Found, question: str, sampling: Sampling | None) -> int:
    """Ask about each picture that `table` has no answer for, and return the exit code: that of an error if a picture
    failed. Ctrl-C stops and keeps all answers so far."""
    left = [Item(file, partial(read_picture, file)) for file in found.pictures if not table.is_done(file)]
    batch = Batch(
        app.engine,
        question,
        left,
        system=app.system,
        sampling=sampling,
        at_once=app.resources.slots,
        language=screen.language,
    )
    if done := len(found.pictures) - len(left):
        screen.note("table.resumed", count=done)
    code = _run(screen, batch, table)
    screen.progress("table.writing")
    table.finish(screen.language, _thumbnail)
    screen.progress(None)
    failed = sum(table.rows[file].failed for file in found.pictures if file in table.rows)
    answered = sum(map(table.is_done, found.pictures))
    screen.note("table.done", count=answered, total=len(found.pictures), failed=failed, skipped=found.skipped)
    screen.note("table.written", csv=table.path, html=table.page)
    if code == EXIT_STOPPED:
        screen.note("table.stopped")
    return code or (EXIT_ERROR if failed else 0)


def _run(screen: Terminal, batch: Batch, table: TableFile) -> int:
    began = time.monotonic()
    try:
        screen.progress("table.first", total=batch.total)
        with closing(batch.rows()) as rows:
            for row in rows:
                table.add(row)
                place = f"[{batch.done}/{batch.total}]"
                line = printable(f"{place} {row.file}: {' '.join(row.answer.split())}")
                screen.progress(None)
                if row.failed:
                    screen.failure(line)
                else:
                    print(line, flush=True)
                seconds = (time.monotonic() - began) / batch.done * (batch.total - batch.done)
                screen.progress("table.progress", done=batch.done, total=batch.total, left=_clock(seconds))
        return 0
    except KeyboardInterrupt:
        return EXIT_STOPPED
    finally:
        screen.progress(None)


def _clock(seconds: float) -> str:
    """3:05, or 1:03:05 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _thumbnail(file: str) -> bytes:
    try:
        return images.thumbnail(read_picture(file), settings.TABLE_THUMBNAIL_SIDE)
    except ImpChatError:
        return b""
