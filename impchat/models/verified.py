"""Remembers which model files have been verified, so that a start reads a file's content only if the file has changed.

In: a data folder, a bundle. Out: a ModelError for a file that differs from the manifest; `verified.json` in the data
folder. A file counts as changed if its path, size, inode, modification time or change time is not the one that it had
when it was verified. Programs cannot choose the change time. Damage by the disk itself changes none of these; `reread`
finds it. This file does not know when models are loaded.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from impchat.bundle import Bundle, File
from impchat.errors import ModelError
from impchat.files import write_atomic

_FILE = "verified.json"


def verify(data: Path, bundle: Bundle, *, reread: bool = False) -> None:
    """Check the hashes of the bundle's files, without those that were verified before and have not changed since.
    `reread`: check all of them. If the data folder `data` is not writable, the next call checks them again.

    Raises ModelError "model.checksum" for the first that differs, "model.file_missing"."""
    before = _load(data)
    known = {} if reread else before
    after = {path: state for path, state in before.items() if Path(path).exists()}
    try:
        for file in bundle.files.values():
            path = str((bundle.path / file.name).resolve())
            state = _state(bundle, file)
            if known.get(path) == state:
                continue
            after.pop(path, None)
            bundle.verify_file(file)
            if _state(bundle, file) == state:  # not written to while it was read
                after[path] = state
    finally:
        if after != before:
            with suppress(OSError):
                write_atomic(data / _FILE, json.dumps(after, indent=1).encode())


def _state(bundle: Bundle, file: File) -> list[str | int]:
    """What is remembered of a file: the hash that it must have, and what changes with every write."""
    try:
        found = (bundle.path / file.name).stat()
    except OSError as exc:
        raise ModelError("model.file_missing", path=str(bundle.path), file=file.name) from exc
    return [file.sha256, found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _load(data: Path) -> dict[str, object]:
    """Path -> state. Empty if there is no usable file."""
    try:
        values = json.loads((data / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
