"""The language of the page for a browser.

In: the Accept-Language header, and the language given on the command line, if any. Out: a language of the catalogue.
This file does not know any sentence.
"""

from __future__ import annotations

from impchat import texts


def choose(accept_language: str, forced: str | None = None) -> str:
    """`forced`, else the browser's preferred language among those of the catalogue, else "en"."""
    if forced:
        return forced
    wanted = []
    for part in accept_language.split(","):
        tag, _, weight = part.strip().partition(";q=")
        try:
            wanted.append((float(weight or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue  # the header is untrusted input: ignore a malformed part
    wanted.sort(key=lambda pair: -pair[0])  # stable: equal weights keep the browser's order
    return next((name for weight, name in wanted if weight > 0 and name in texts.LANGUAGES), "en")
