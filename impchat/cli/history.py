"""`impchat history`: list, show, search, export, import, delete and restore conversations, empty the bin.

In: an open history and parsed arguments. Out: text on stdout, files, exit codes.
This file does not know models: conversations can be read without one.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from impchat import presentation, settings
from impchat.cli.terminal import Terminal, printable, read_file
from impchat.errors import HistoryError, SettingsError
from impchat.history import archive, documents
from impchat.history.store import History
from impchat.messages import Conversation, Message

SHORT = 8  # characters of a uuid to show; any unambiguous prefix is accepted
_OWNER = settings.OWNER


def run(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    """Run the action `args.action` and return the exit code."""
    return {
        "list": _list,
        "show": _show,
        "search": _search,
        "export": _export,
        "import": _import,
        "delete": _delete,
        "restore": _restore,
        "empty-bin": _empty_bin,
    }[args.action](history, screen, args)


def find(history: History, beginning: str, deleted: bool | None = None) -> Conversation:
    """The conversation whose uuid starts with `beginning`. `deleted`: only deleted or only existing ones; None: both.

    Raises HistoryError "history.no_conversation" or "history.ambiguous"."""
    kinds = (False, True) if deleted is None else (deleted,)
    rows = [c for kind in kinds for c in _all(history, deleted=kind) if c.uuid.startswith(beginning.lower())]
    if not rows or not beginning:
        raise HistoryError("history.no_conversation", conversation=beginning)
    if len(rows) > 1:
        raise HistoryError("history.ambiguous", conversation=beginning, count=len(rows))
    return rows[0]


def _all(history: History, **which: bool) -> list[Conversation]:
    return history.conversations(_OWNER, archived=None, limit=sys.maxsize, **which)  # type: ignore[arg-type]


def _list(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    rows = history.conversations(
        _OWNER, folder=args.folder, tag=args.tag, archived=args.archived, deleted=args.deleted, limit=args.count
    )
    counts = history.counts(_OWNER, [row.uuid for row in rows])
    for row in rows:
        _line(screen, row, counts.get(row.uuid, (0, 0)))  # 0: purged by another process since
    if not rows:
        screen.note("history.none")
    return 0


def _line(screen: Terminal, row: Conversation, counts: tuple[int, int]) -> None:
    title = printable(presentation.title_of(row, screen.language))
    size = screen.text("history.counts", messages=counts[0], pictures=counts[1])
    print(f"{row.uuid[:SHORT]}  {presentation.moment(row.updated_utc)}  {title}  ({size})")


def _show(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    row = find(history, args.conversation)
    print(f"# {printable(presentation.title_of(row, screen.language))}\n")
    for message in history.branch(row.uuid, _OWNER):
        _print_message(history, screen, message)
    return 0


def _print_message(history: History, screen: Terminal, message: Message) -> None:
    print(f"{screen.text(f'archive.{message.role}', model=message.model)}:")
    for sha in message.images:
        image = history.image(sha)
        print(f"[{screen.text('history.picture', width=image.width, height=image.height)}]")
    if message.text:
        print(printable(message.text))
    if message.state != "done":
        print(f"({screen.text(f'archive.{message.state}')})")
    print()


def _search(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    hits = history.search(_OWNER, " ".join(args.words))
    for hit in hits:
        title = hit.title or presentation.title_of(history.conversation(hit.conversation, _OWNER), screen.language)
        when = presentation.moment(hit.created_utc)
        print(f"{hit.conversation[:SHORT]}  {when}  {printable(title)}\n    {printable(hit.snippet)}")
    if not hits:
        screen.note("history.nothing_found")
    return 0


def _export(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    row = find(history, args.conversation)
    suffix = "md" if args.markdown else "html" if args.html else "zip"
    target = Path(os.path.expanduser(args.output or f"impchat-{row.uuid[:SHORT]}.{suffix}"))
    if args.markdown:
        _write(target, archive.export_markdown(history, row.uuid, _OWNER, screen.language).encode())
        for name, data in archive.image_files(history, row.uuid, _OWNER).items():
            if not (target.parent / name).exists():  # its name identifies its content
                _write(target.parent / name, data)
    elif args.html:
        _write(target, documents.export_html(history, row.uuid, _OWNER, screen.language).encode())
    else:
        _write(target, archive.export_zip(history, row.uuid, _OWNER))
    screen.note("history.exported", path=target)
    return 0


def _write(path: Path, data: bytes) -> None:
    """Create a new file. Raises SettingsError "file.exists" or "file.unwritable"."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise SettingsError("file.unwritable", path=path.parent, detail=exc.strerror or exc) from exc
    try:
        with path.open("xb") as out:
            try:
                out.write(data)
                out.flush()
            except OSError:
                path.unlink()  # an incomplete file is useless and would block the next export
                raise
    except FileExistsError as exc:
        raise SettingsError("file.exists", path=path) from exc
    except OSError as exc:
        raise SettingsError("file.unwritable", path=path, detail=exc.strerror or exc) from exc


def _import(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    rows = archive.import_file(history, read_file(args.file), _OWNER)
    screen.note("history.imported")
    counts = history.counts(_OWNER, [row.uuid for row in rows])
    for row in rows:
        _line(screen, row, counts[row.uuid])
    return 0


def _delete(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    row = find(history, args.conversation, deleted=False)
    title = printable(presentation.title_of(row, screen.language))
    if not _confirmed(screen, args, "history.confirm_delete", title=title):
        return 1
    history.delete_conversation(row.uuid, _OWNER)
    screen.note("history.deleted", conversation=row.uuid[:SHORT])
    return 0


def _confirmed(screen: Terminal, args: argparse.Namespace, key: str, **values: object) -> bool:
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError("delete.unconfirmed")
    if screen.confirm(key, **values):
        return True
    screen.note("history.kept")
    return False


def _empty_bin(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    if not _confirmed(screen, args, "history.confirm_empty", count=len(_all(history, deleted=True))):
        return 1
    screen.note("history.emptied", count=history.empty_bin(_OWNER))
    return 0


def _restore(history: History, screen: Terminal, args: argparse.Namespace) -> int:
    row = find(history, args.conversation)
    if row.deleted_utc:
        history.restore_conversation(row.uuid, _OWNER)
    else:
        screen.note("history.not_deleted")
    _line(screen, row, history.counts(_OWNER, [row.uuid])[row.uuid])
    return 0
