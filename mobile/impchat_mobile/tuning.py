"""How a phone runs its model: what the person chose, one conversation at a time, and with as little memory as it can.

In: preferences. Out: the core's `Tuning`. This file does not know Flet.
"""

from __future__ import annotations

from impchat import settings
from impchat.app import Tuning
from impchat.preferences import Preferences


def tuning(wanted: Preferences) -> Tuning:
    """What the preferences say, for the App."""
    return Tuning(settings.MOBILE_SLOTS, wanted.threads, wanted.context_tokens, packed=False)
