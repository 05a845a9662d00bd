"""How a phone runs its model: one conversation at a time, with as little memory as it can, and as the person chose.

In: how the app runs its model now, preferences. Out: the core's `Tuning`, and the memory that this takes.
This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import replace

from impchat import settings
from impchat.app import Tuning
from impchat.models import catalog
from impchat.models.catalog import Entry
from impchat.preferences import Preferences

PHONE = Tuning(settings.MOBILE_SLOTS, packed=False)


def tuned(tuning: Tuning, wanted: Preferences) -> Tuning:
    """With what was chosen. The rest stays: below the page of a computer it is that computer's."""
    return replace(tuning, threads=wanted.threads, context_tokens=wanted.context_tokens)


def memory_bytes(tuning: Tuning, entry: Entry | None, bundle_bytes: int, context_tokens: int) -> int:
    """About what a bundle of this size takes, run so."""
    return catalog.memory_bytes(entry, bundle_bytes, context_tokens, tuning.slots, tuning.packed)
