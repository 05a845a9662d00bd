"""Two sheets of the chat screen: actions on the open conversation, and how full its context is.

In: the open conversation. Out: the sheets. This file does not know messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flet as ft

from impchat_mobile import theme
from impchat_mobile.app_shell import Shell
from impchat_mobile.conversation import OpenConversation
from impchat_mobile.guard import Handler

if TYPE_CHECKING:
    from impchat_mobile.navigator import Navigator


def conversation(shell: Shell, current: OpenConversation, navigator: Navigator) -> None:
    """Open a sheet: rename, export, delete, and the screens without a button of their own."""
    say = shell.say
    actions = []
    if current.conversation and current.messages:
        uuid = current.conversation
        actions = [
            shell.action(
                ft.Icons.DRIVE_FILE_RENAME_OUTLINE, say("chat.rename"), lambda: navigator.history.rename(uuid)
            ),
            shell.action(ft.Icons.IOS_SHARE_ROUNDED, say("mobile.export"), lambda: navigator.export(uuid)),
            shell.action(
                ft.Icons.DELETE_OUTLINE_ROUNDED, say("chat.delete"), lambda: navigator.history.delete(uuid), danger=True
            ),
        ]
    shell.sheet(
        *actions,
        shell.action(ft.Icons.VISIBILITY_OFF_OUTLINED, say("mobile.eyes_free"), navigator.eyes_free),
        shell.action(ft.Icons.SETTINGS_OUTLINED, say("mobile.settings"), navigator.settings),
    )


def context(shell: Shell, current: OpenConversation, navigator: Navigator, new: Handler) -> None:
    """Open a sheet: how full the context is, and how to get more room. `new`: opens a new conversation."""
    say = shell.say
    left = max(0, round((1 - current.context_used) * current.context_tokens))
    image = shell.app.bundle.image.tokens if shell.app.bundle else 0
    room = say("mobile.context_left", words=_words(left), pictures=left // (image or 256))
    shell.sheet(
        ft.Container(
            ft.Column(
                [
                    ft.Text(say("mobile.context", percent=round(100 * current.context_used)), size=18,
                            weight=ft.FontWeight.W_600),
                    ft.ProgressBar(value=current.context_used, border_radius=4, bar_height=8),
                    ft.Text(room, color=theme.MUTED),
                ],
                spacing=12,
                tight=True,
            ),
            padding=ft.Padding.only(left=20, right=20, bottom=8),
        ),
        shell.action(ft.Icons.EDIT_SQUARE, say("chat.new"), new),
        *([] if shell.shares
          else [shell.action(ft.Icons.TUNE_ROUNDED, say("mobile.context_change"), navigator.settings)]),
    )  # fmt: skip


def _words(tokens: int) -> int:
    """The approximate number of words in `tokens` tokens, rounded to 50."""
    return round(tokens * 0.7 / 50) * 50
