"""How the phone app runs a model: one conversation at a time, with little memory, and as set in the preferences.

In: an App and preferences. Out: the App, set to run a bundle that way, and an estimate of the memory that it takes.
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


def tuned(tuning: Tuning, preferences: Preferences) -> Tuning:
    """`tuning` with the threads and the context length of the preferences."""
    return replace(tuning, threads=preferences.threads, context_tokens=preferences.context_tokens)


def run(app: App, bundle: Bundle, preferences: Preferences | None) -> None:
    """Use `bundle` for all answers from now on. `preferences` None: keep the current tuning.

    Raises ModelError "model.answering" if that would interrupt a running answer or prefill."""
    tuning = tuned(app.tuning, preferences) if preferences else app.tuning
    if (bundle, tuning) != (app.bundle, app.tuning) and not app.idle:
        raise ModelError("model.answering")
    app.run_with(bundle, tuning)


def memory_bytes(tuning: Tuning, entry: Entry | None, bundle_bytes: int, context_tokens: int) -> int:
    """The approximate memory that a bundle of `bundle_bytes` takes with this tuning and context length."""
    return catalog.memory_bytes(entry, bundle_bytes, context_tokens, tuning.slots, tuning.packed)
