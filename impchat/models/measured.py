"""The measurements made when a bundle was made, as sentences.

In: a bundle. Out: keys of the catalogue of texts with their values: a line for each figure, and a warning for each
choice that is clearly worse than another.
This file does not know how anything is measured; `convert.verify` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import exp
from typing import Any

from impchat import settings
from impchat.bundle import Bundle

Line = tuple[str, dict[str, Any]]  # a key of the catalogue of texts, and the values of its sentence
_CHOICES = ("templates", "aspects")


def lines(bundle: Bundle) -> Iterator[Line]:
    """A line for each figure of the manifest. Figures unknown to this version are shown under their name in the
    manifest."""
    figures = dict(bundle.figures)
    found = figures.pop("verify", {})
    verified = dict(found) if isinstance(found, Mapping) else {}
    verified.pop("trained", None)
    for key, names in (
        ("eyes", ("cosine", "cosine_least")),
        ("tokens", ("agreement", "sure")),
        ("answers", ("nll", "end_nll", "contrast")),
    ):
        values = {name: verified.pop(name, None) for name in names}
        if all(isinstance(value, int | float) for value in values.values()):
            if key == "tokens":
                values["agreement"] *= 100  # percent
            if key == "answers":
                for of, name in (("nll", "chance"), ("end_nll", "end_chance")):
                    values[name] = round(100 * exp(-max(0, values[of])), 2)  # percent
            yield f"measured.{key}", {name: f"{round(value, 5):g}" for name, value in values.items()}
    for name in _CHOICES:
        if choice := _choice(verified.pop(name, None)):
            used, nats = choice
            told = ", ".join(f"{way} {value:.3g}" for way, value in nats.items())
            yield f"measured.{name}", {"nats": told, "used": used}
    for name, value in [*verified.items(), *figures.items()]:
        if value is not None:
            yield "measured.other", {"name": name, "value": value}


def warnings(bundle: Bundle) -> Iterator[Line]:
    """Warnings before relying on the bundle: that it is unverified, and which choices are clearly worse."""
    if bundle.unverified:
        yield "measured.unverified", {"name": bundle.name, "figures": bundle.unverified}
    found = bundle.figures.get("verify")
    for name in _CHOICES:
        if choice := _choice(found.get(name) if isinstance(found, Mapping) else None):
            used, nats = choice
            best = min(nats, key=lambda way: nats[way])
            if nats[best] < nats[used] - settings.VERIFY_CLEARLY:
                values = {
                    "best": best,
                    "best_nats": f"{nats[best]:.3g}",
                    "used": used,
                    "used_nats": f"{nats[used]:.3g}",
                }
                yield f"measured.{name}_lose", values


def _choice(value: Any) -> tuple[str, Mapping[str, float]] | None:
    """The option in use and the nats of all options; None if the manifest's value has another form."""
    if not isinstance(value, Mapping) or not isinstance(nats := value.get("nats"), Mapping):
        return None
    used = value.get("used")
    known = all(isinstance(number, int | float) for number in nats.values())
    return (str(used), nats) if used in nats and known else None
