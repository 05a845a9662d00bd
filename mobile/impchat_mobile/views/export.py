"""Export of a conversation as a zip file with its pictures.

In: the uuid of a conversation. Out: the platform's dialog to share or save a file.
This file does not know the contents of the zip file, which `impchat.history.archive` creates.
"""

from __future__ import annotations

import asyncio
import re

import flet as ft

from impchat import presentation, settings
from impchat.history import archive
from impchat_mobile.app_shell import Shell


async def export(shell: Shell, conversation: str) -> None:
    """Share the zip file, or save it if the platform cannot share."""
    row = await asyncio.to_thread(shell.app.history.conversation, conversation, settings.OWNER)
    title = presentation.title_of(row, shell.language)
    name = re.sub(r"[^\w-]+", "-", title).strip("-")[:40] or "impchat"
    data = await asyncio.to_thread(archive.export_zip, shell.app.history, conversation, settings.OWNER)
    file = ft.ShareFile.from_bytes(data, mime_type="application/zip", name=f"{name}.zip")
    try:
        await shell.share.share_files([file], title=title)
    except Exception:  # noqa: BLE001 - this platform cannot share
        done = await shell.picker.save_file(file_name=f"{name}.zip", src_bytes=data)
        if done or shell.page.web:
            shell.notify(shell.say("mobile.saved"))
