"""The history as a list: conversations grouped by age, or the results of a search, with a thumbnail for each.

In: the App and a search query. Out: `HistoryEntry` values in groups. This file does not know Flet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from impchat import presentation, settings
from impchat.app import App
from impchat.history.store import Hit


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
    if query.strip():
        hits: dict[str, Hit] = {}
        for hit in history.search(owner, query, limit):
            hits.setdefault(hit.conversation, hit)
        covers = _covers(app, list(hits))
        found = []
        for uuid, hit in hits.items():
            title = hit.title or presentation.title_of(history.conversation(uuid, owner), language)
            found.append(HistoryEntry(uuid, title, hit.snippet if hit.message else "", covers.get(uuid)))
        return [Group("", tuple(found))] if found else []
    conversations = history.conversations(owner, limit=limit)
    covers = _covers(app, [c.uuid for c in conversations])
    return [
        Group(
            f"chat.history_{name}",
            tuple(
                HistoryEntry(c.uuid, presentation.title_of(c, language), "", covers.get(c.uuid), c.pinned)
                for c in members
            ),
        )
        for name, members in groupby(conversations, key=lambda c: presentation.group_of(c, today))
    ]


def _covers(app: App, conversations: Sequence[str]) -> dict[str, bytes]:
    """Conversation -> its thumbnail, for those that have one."""
    images = app.history.covers(settings.OWNER, conversations)
    small = app.thumbnails.available(set(images.values()))
    return {conversation: small[image] for conversation, image in images.items() if image in small}
