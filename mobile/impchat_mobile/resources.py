"""How the phone app runs a model: one conversation at a time, with little memory, and as set in the preferences.

In: an App and preferences. Out: the App, set to run a bundle that way, and an estimate of the memory that it takes.
This file does not know Flet.
"""

from __future__ import annotations

from dataclasses import replace

from impchat import settings
from impchat.app import App, Resources
from impchat.bundle import Bundle
from impchat.errors import ModelError
from impchat.models import catalog
from impchat.models.catalog import Entry
from impchat.preferences import Preferences

PHONE = Resources(settings.MOBILE_SLOTS, packed=False, kv_states_bytes=settings.MOBILE_KV_STATES_BYTES)


def resources_of(resources: Resources, preferences: Preferences) -> Resources:
    """`resources` with the threads and the context length of the preferences."""
    return replace(resources, threads=preferences.threads, context_tokens=preferences.context_tokens)


def run(app: App, bundle: Bundle, preferences: Preferences | None) -> None:
    """Use `bundle` for all answers from now on. `preferences` None: keep the current resources.

    Raises ModelError "model.answering" if that would interrupt a running answer or prefill."""
    resources = resources_of(app.resources, preferences) if preferences else app.resources
    if (bundle, resources) != (app.bundle, app.resources) and not app.idle:
        raise ModelError("model.answering")
    app.run_with(bundle, resources)


def memory_bytes(resources: Resources, entry: Entry | None, bundle_bytes: int, context_tokens: int) -> int:
    """The approximate memory that a bundle of `bundle_bytes` takes with these resources and this context length."""
    return catalog.memory_bytes(entry, bundle_bytes, context_tokens, resources.slots, resources.packed)
