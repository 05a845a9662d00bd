"""The history as a list: conversations grouped by age, or the results of a search, with a thumbnail for each.

In: the App and a search query. Out: `HistoryEntry` values in groups. This file does not know Flet.
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
    snippet: str = ""  # the text around the match
    cover: bytes | None = None  # a thumbnail, JPEG
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Entries below one heading. `heading`: a key of the text catalogue; "": no heading."""

    heading: str
    entries: tuple[HistoryEntry, ...]


def groups(app: App, query: str, language: str, today: date, limit: int) -> list[Group]:
    """All conversations, or those that match `query` if it is not blank; at most `limit`. Reads the disk."""
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
