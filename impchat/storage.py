"""What ImpChat keeps on this machine, in bytes, and making room.

In: an open App. Out: sizes by kind; what was deleted is removed for good when asked.
This file does not know who asks.
"""

from __future__ import annotations

from dataclasses import dataclass

from impchat import paths, settings
from impchat.app import App
from impchat.models.library import disk_bytes


@dataclass(frozen=True, slots=True)
class Used:
    """Bytes on the disk."""

    conversations: int  # the database with its journal
    pictures: int
    models: int  # downloaded ones, unfinished downloads, kept checkpoints
    deleted: int  # conversations that can still be restored: a number, not bytes


def used(app: App, owner: str = settings.OWNER) -> Used:
    """What lies in the data folder of `app`."""
    database = paths.history_file(app.data)
    return Used(
        conversations=sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")),
        pictures=disk_bytes(app.data / "images"),
        models=disk_bytes(paths.models_dir(app.data)) + disk_bytes(paths.checkpoints_dir(app.data)),
        deleted=len(app.history.conversations(owner, deleted=True, limit=100_000)),
    )


def empty_deleted(app: App, owner: str = settings.OWNER) -> int:
    """Remove for good what was deleted, with the pictures that nothing else shows; how many conversations."""
    gone = app.history.conversations(owner, deleted=True, limit=100_000)
    for conversation in gone:
        app.history.purge_conversation(conversation.uuid, owner)
    return len(gone)


def clear_conversations(app: App, owner: str = settings.OWNER) -> int:
    """Remove every conversation for good, deleted ones too; how many."""
    for conversation in app.history.conversations(owner, limit=100_000):
        app.history.delete_conversation(conversation.uuid, owner)
    return empty_deleted(app, owner)
