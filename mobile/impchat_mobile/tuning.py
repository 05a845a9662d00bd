"""How a phone runs its model: one conversation at a time, with as little memory as it can, and as the person chose.

In: an App, preferences. Out: the App running a bundle so, and the memory that this takes.
This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import replace

from impchat import settings
from impchat.app import App, Tuning
from impchat.bundle import Bundle
from impchat.errors import ModelError
from impchat.models import catalog
from impchat.models.catalog import Entry
from impchat.preferences import Preferences

PHONE = Tuning(settings.MOBILE_SLOTS, packed=False)


def tuned(tuning: Tuning, wanted: Preferences) -> Tuning:
    """With what was chosen."""
    return replace(tuning, threads=wanted.threads, context_tokens=wanted.context_tokens)


def run(app: App, bundle: Bundle, wanted: Preferences | None) -> None:
    """Let `bundle` answer from now on. `wanted` None: run as the model is run now.

    Raises ModelError "model.answering" while an answer is written or a picture read, which it would cut off."""
    tuning = tuned(app.tuning, wanted) if wanted else app.tuning
    if (bundle, tuning) != (app.bundle, app.tuning) and not app.idle:
        raise ModelError("model.answering")
    app.run_with(bundle, tuning)


def memory_bytes(tuning: Tuning, entry: Entry | None, bundle_bytes: int, context_tokens: int) -> int:
    """About what a bundle of this size takes, run so."""
    return catalog.memory_bytes(entry, bundle_bytes, context_tokens, tuning.slots, tuning.packed)
