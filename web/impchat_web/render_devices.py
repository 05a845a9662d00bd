"""The panel that pairs a phone, as HTML: a QR code, the result of a code, and who has access to this ImpChat.

In: links, codes and holders. Out: HTML; every name is escaped. This file does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from urllib.parse import quote

import segno

from impchat.peers.pairing import Link
from impchat.server import phone_app
from impchat.server.phone_app import AppFile
from impchat.server.tokens import Code, Holder
from impchat.texts import say

_SIGN = '<span class="sign" aria-hidden="true"></span>'


def button(language: str) -> str:
    """The button that opens the panel."""
    return (
        f'<button type="button" class="devices" data-do="devices">{_SIGN}'
        f"<span>{escape(say('web.devices', language))}</span></button>"
    )


def offer(link: Link, apps: Sequence[AppFile], language: str) -> str:
    """A link to scan or copy, a fingerprint to compare, and the app for phones that do not have it."""
    warning = "" if not link.is_plain else f'<p class="warning">{escape(say("listen.plain", language))}</p>'
    places = "".join(f"<li>{escape(place)}</li>" for place in link.places)
    pin = " ".join(link.fingerprint[at : at + 4] for at in range(0, len(link.fingerprint), 4))
    compare = f"<h3>{escape(say('web.devices_fingerprint', language))}</h3><p><code>{pin}</code></p>" if pin else ""
    return (
        f'<div class="offer">{_qr(str(link), say("web.devices_qr", language))}'
        f'<div class="how"><p>{escape(say("web.devices_scan", language))}</p>{warning}<p class="left"></p>'
        f'<button type="button" class="plain" data-do="copy-link" data-link="{escape(str(link))}">'
        f"{escape(say('web.devices_copy', language))}</button></div></div>{_typed(link, language)}"
        f"<details><summary>{escape(say('web.devices_details', language))}</summary>"
        f"<h3>{escape(say('web.devices_addresses', language))}</h3><ol>{places}</ol>{compare}</details>"
    ) + (_app(link, apps, language) if apps else "")


def _typed(link: Link, language: str) -> str:
    """The values to type and compare if nothing can be scanned."""
    told = {"address": link.places[0], "code": link.code, "check": link.check}
    rows = "".join(
        f"<dt>{escape(say(f'web.devices_{name}', language))}</dt><dd><code>{escape(value)}</code></dd>"
        for name, value in told.items()
        if value
    )
    return f'<p class="typed">{escape(say("web.devices_typed", language))}</p><dl>{rows}</dl>'


def _qr(text: str, name: str) -> str:
    drawn = segno.make(text, error="m", micro=False).svg_inline(border=3, omitsize=True, light="#fff")
    return f'<div class="qr" role="img" aria-label="{escape(name)}">{drawn}</div>'


def _app(link: Link, apps: Sequence[AppFile], language: str) -> str:
    """Downloads of the app: the first file as a QR code, all of them as links."""
    address = f"{'http' if link.is_plain else 'https'}://{link.places[0]}{phone_app.PATH}{quote(apps[0].name)}"
    warns = "" if link.is_plain else f"<p>{escape(say('web.devices_app_warns', language))}</p>"
    files = "".join(
        f'<li><a href="{phone_app.PATH}{quote(app.name)}" download>{escape(app.name)}</a> '
        f"({escape(say('web.devices_app_size', language, megabytes=max(1, round(app.bytes / 1e6))))})<br>"
        f"<code>SHA-256 {app.sha256}</code></li>"
        for app in apps
    )
    return (
        f'<details class="app"><summary>{escape(say("web.devices_app", language))}</summary>'
        f'<div class="offer">{_qr(address, say("web.devices_app_qr", language))}'
        f'<div class="how"><p>{escape(say("web.devices_app_says", language))}</p>{warns}</div></div>'
        f"<ul>{files}</ul></details>"
    )


def ended(code: Code, language: str) -> str:
    """The panel for a code that was used or has expired."""
    again = f'<button type="button" class="plain" data-do="devices">{escape(say("web.devices_new", language))}</button>'
    if code.state == "used":
        told = escape(say("web.devices_paired", language, device=code.device or "?"))
        return f'<div class="ended paired">{_SIGN}<p>{told}</p>{again}</div>'
    return f'<div class="ended"><p>{escape(say("web.devices_over", language))}</p>{again}</div>'


def refused(sentence: str) -> str:
    """The reason why there is no code."""
    return f'<div class="ended"><p>{escape(sentence)}</p></div>'


def holders(found: Iterable[Holder], language: str) -> str:
    """Everyone with access to this ImpChat, each with a button that revokes it."""
    rows = "".join(_holder(holder, language) for holder in found)
    title = f"<h3>{escape(say('web.devices_list', language))}</h3>"
    return title + (
        f"<ul>{rows}</ul>" if rows else f'<p class="nothing">{escape(say("web.devices_none", language))}</p>'
    )


def _here(utc: str) -> str:
    """A time in this machine's time zone, which is the reader's: the page is for this machine only."""
    return datetime.fromisoformat(utc).astimezone().strftime("%Y-%m-%d %H:%M")


def _holder(holder: Holder, language: str) -> str:
    seen = (
        say("web.devices_seen", language, when=_here(holder.used_utc))
        if holder.used_utc
        else say("web.devices_unseen", language)
    )
    remove = escape(say("web.devices_remove", language))
    return (
        f'<li><span class="who" dir="auto">{escape(holder.name)}</span>'
        f'<span class="seen">{escape(say(f"token.kind_{holder.kind}", language))} · {escape(seen)}</span>'
        f'<button type="button" class="plain" data-do="revoke" data-holder="{escape(holder.id)}" '
        f'aria-label="{remove}: {escape(holder.name)}">{remove}</button></li>'
    )
