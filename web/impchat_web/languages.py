"""Which language the page speaks to a browser.

In: the Accept-Language header, and the language chosen on the command line if any. Out: a language of the catalogue.
This file does not know any sentence.
"""

from __future__ import annotations

from impchat import texts


def choose(accept_language: str, forced: str | None = None) -> str:
    """The language to use: `forced`, else the browser's most wanted one that there are texts for, else "en"."""
    if forced:
        return forced
    wanted = []
    for part in accept_language.split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((float(weight or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue  # a header is foreign input: a broken part of it counts for nothing
    wanted.sort(key=lambda pair: -pair[0])  # stable: equal weights keep the browser's order
    return next((name for weight, name in wanted if weight > 0 and name in texts.LANGUAGES), "en")
