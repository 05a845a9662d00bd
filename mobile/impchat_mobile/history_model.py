"""The history as a list: groups by age, what a search finds, and the picture that stands for each conversation.

In: the App and what is typed into the search. Out: `HistoryEntry` values in groups. This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import groupby

from impchat import presentation, settings
from impchat.app import App


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A conversation in the list."""

    uuid: str
    title: str
    snippet: str = ""  # around the words that were looked for
    cover: bytes | None = None  # a small picture
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Entries below one heading, a key of the catalogue; "": none."""

    heading: str
    entries: tuple[HistoryEntry, ...]


def groups(app: App, query: str, language: str, today: date, limit: int) -> list[Group]:
    """All conversations, or those in which `query` is found, at most `limit`. Reads the disk."""
    history, owner = app.history, settings.OWNER
    covers = history.covers(owner)

    def cover(uuid: str) -> bytes | None:
        return app.thumbnails.available([covers[uuid]]).get(covers[uuid]) if uuid in covers else None

    if query.strip():
        found: dict[str, HistoryEntry] = {}
        for hit in history.search(owner, query, limit):
            if hit.conversation not in found:
                title = hit.title or presentation.title_of(history.conversation(hit.conversation, owner), language)
                snippet = hit.snippet if hit.message else ""
                found[hit.conversation] = HistoryEntry(hit.conversation, title, snippet, cover(hit.conversation))
        return [Group("", tuple(found.values()))] if found else []
    conversations = history.conversations(owner, limit=limit)
    return [
        Group(
            f"chat.history_{name}",
            tuple(
                HistoryEntry(c.uuid, presentation.title_of(c, language), "", cover(c.uuid), c.pinned) for c in members
            ),
        )
        for name, members in groupby(conversations, key=lambda c: presentation.group_of(c, today))
    ]
