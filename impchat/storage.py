"""The disk space that ImpChat uses on this machine, and freeing it.

In: an open App. Out: sizes by kind; conversations deleted permanently; what was kept for speed removed.
This file does not know who calls it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from impchat import paths, settings
from impchat.app import App
from impchat.models.library import disk_bytes


@dataclass(frozen=True, slots=True)
class Used:
    """Bytes on disk."""

    conversations: int  # the database and its journal
    pictures: int
    kept: int  # what has been read, so that it is not read again: KV states and embeddings
    models: int  # downloaded ones, unfinished downloads, kept checkpoints
    deleted: int  # number of conversations that can still be restored, not bytes


def used(app: App, owner: str = settings.OWNER) -> Used:
    """The space used in the data folder of `app`."""
    database = paths.history_file(app.data)
    return Used(
        conversations=sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")),
        pictures=disk_bytes(app.data / "images"),
        kept=sum(disk_bytes(folder) for folder in _kept(app)),
        models=disk_bytes(paths.models_dir(app.data)) + disk_bytes(paths.checkpoints_dir(app.data)),
        deleted=app.history.count(owner, deleted=True),
    )


def clear_kept(app: App) -> None:
    """Remove saved KV states and embeddings. The next question in a conversation takes longer."""
    for folder in _kept(app):
        shutil.rmtree(folder, ignore_errors=True)


def _kept(app: App) -> tuple[Path, Path]:
    return paths.kv_states_dir(app.data), paths.embeddings_dir(app.data)


def empty_deleted(app: App, owner: str = settings.OWNER) -> int:
    """Permanently remove deleted conversations, with pictures used nowhere else; return how many."""
    return app.history.empty_bin(owner)


def clear_conversations(app: App, owner: str = settings.OWNER) -> int:
    """Permanently remove all conversations, including deleted ones; return how many."""
    for conversation in app.history.conversations(owner, archived=None, limit=100_000):
        app.history.delete_conversation(conversation.uuid, owner)
    return empty_deleted(app, owner)
