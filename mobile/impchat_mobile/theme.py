"""The look: colours for both themes, and the few shapes that every screen is made of.

In: a theme or content. Out: Flet's values. The colours are those of ImpChat-Web.
This file does not know any screen.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import flet as ft
from PIL import Image

COLUMN = 720  # widest column of text, for tablets and landscape
WIDE, TALL = 900, 560  # from this width and height on the history stands beside the conversation
SIDE = 320
ROUND = 20
_LEAST = 48  # pixels that a picture is wide and high at least
_THIN = 50  # times as long as wide

_LIGHT = {
    "primary": "#b4421d",
    "on_primary": "#ffffff",
    "primary_container": "#fbe3da",
    "on_primary_container": "#4a1907",
    "secondary": "#6d6873",
    "on_secondary": "#ffffff",
    "secondary_container": "#efece6",
    "on_secondary_container": "#24212a",
    "surface": "#fbfaf8",
    "on_surface": "#24212a",
    "on_surface_variant": "#625d68",
    "surface_container_lowest": "#ffffff",
    "surface_container_low": "#f6f4f0",
    "surface_container": "#f3f1ec",
    "surface_container_high": "#efece6",
    "surface_container_highest": "#e9e5dd",
    "outline": "#8a848f",
    "outline_variant": "#e4e0d8",
    "error": "#b3261e",
    "on_error": "#ffffff",
    "error_container": "#fbeae7",
    "on_error_container": "#7a1b15",
    "inverse_surface": "#2e2a34",
    "on_inverse_surface": "#f3f1ec",
    "inverse_primary": "#f5976f",
}
_DARK = {
    "primary": "#f5976f",
    "on_primary": "#43170a",
    "primary_container": "#4d2a1d",
    "on_primary_container": "#ffdccf",
    "secondary": "#a49eac",
    "on_secondary": "#1b191f",
    "secondary_container": "#2e2a34",
    "on_secondary_container": "#ebe7ee",
    "surface": "#1b191f",
    "on_surface": "#ebe7ee",
    "on_surface_variant": "#b3adbb",
    "surface_container_lowest": "#151318",
    "surface_container_low": "#201d24",
    "surface_container": "#252229",
    "surface_container_high": "#2b2730",
    "surface_container_highest": "#37323e",
    "outline": "#8f8997",
    "outline_variant": "#37323e",
    "error": "#ff9d92",
    "on_error": "#4c100b",
    "error_container": "#3b2322",
    "on_error_container": "#ffd9d4",
    "inverse_surface": "#ebe7ee",
    "on_inverse_surface": "#24212a",
    "inverse_primary": "#b4421d",
}
FAINT = ft.Colors.ON_SURFACE_VARIANT


def theme(dark: bool) -> ft.Theme:
    """The theme for light or dark."""
    return ft.Theme(
        scaffold_bgcolor=ft.Colors.SURFACE,
        color_scheme=ft.ColorScheme(**(_DARK if dark else _LIGHT)),
        appbar_theme=ft.AppBarTheme(elevation=0, elevation_on_scroll=0, bgcolor=ft.Colors.SURFACE),
        page_transitions=ft.PageTransitionsTheme(android=ft.PageTransitionTheme.PREDICTIVE),
    )


def column(content: ft.Control, expand: bool = False) -> ft.Control:
    """`content` in the middle, not wider than text can be read."""
    inner = ft.Container(content, width=COLUMN, expand_loose=True, expand=True)
    return ft.Row([inner], alignment=ft.MainAxisAlignment.CENTER, expand=expand, spacing=0)


def heading(text: str) -> ft.Control:
    """What stands above a group of tiles."""
    return ft.Semantics(
        header=True,
        content=ft.Container(
            ft.Text(text, size=13, weight=ft.FontWeight.W_600, color=ft.Colors.PRIMARY),
            padding=ft.Padding.only(left=20, right=20, top=20, bottom=4),
        ),
    )


def faint(text: str, **options: Any) -> ft.Text:
    """A word aside."""
    style: dict[str, Any] = {"size": 12, "color": FAINT}
    return ft.Text(text, **(style | options))


def surface(dark: bool) -> str:
    """The colour behind everything."""
    return (_DARK if dark else _LIGHT)["surface"]


def button(
    icon: ft.IconData,
    label: str,
    on_click: Callable[[object], object] | None,
    size: int = 24,
    color: str | None = None,
    **options: Any,
) -> ft.IconButton:
    """A sign to tap, as large as a finger, with its name for screen readers."""
    return ft.IconButton(sign(icon, label, size, color), tooltip=label, on_click=on_click, **options)


def sign(icon: ft.IconData, label: str, size: int = 24, color: str | None = None) -> ft.Icon:
    """An icon with a name. A button's tooltip does not name it: within a list all but the first tooltip get lost."""
    return ft.Icon(icon, size=size, color=color or ft.Colors.ON_SURFACE_VARIANT, semantics_label=label)


def small(icon: ft.IconData, label: str, on_click: Callable[[object], object] | None, **options: Any) -> ft.IconButton:
    """A quiet sign below a message."""
    style: dict[str, Any] = {"size": 18, "color": FAINT, "padding": 0, "size_constraints": ft.BoxConstraints(40, 40)}
    return button(icon, label, on_click, **(style | options))


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture."""
    with Image.open(io.BytesIO(data)) as opened:  # reads no more than its header
        return opened.size


def whole(data: bytes, width: float, height: float, radius: float, label: str) -> ft.Image:
    """All of a picture, as large as fits; of a long one the ends are cut, so that there is something to tap, and a very
    long one is stretched, so that there is something to see."""
    sides = size(data)
    scale = min(width / sides[0], height / sides[1])
    shown_width, shown_height = (max(side * scale, min(_LEAST, height)) for side in sides)
    return ft.Image(
        data,
        width=shown_width,
        height=shown_height,
        fit=ft.BoxFit.FILL if max(sides) > _THIN * min(sides) else ft.BoxFit.COVER,
        border_radius=radius,
        gapless_playback=True,
        semantics_label=label,
    )


def card(content: ft.Control, **options: Any) -> ft.Container:
    """A raised part of the page."""
    style: dict[str, Any] = {"padding": 16, "border_radius": ROUND, "bgcolor": ft.Colors.SURFACE_CONTAINER}
    return ft.Container(content, **(style | options))


def bar(title: str, *actions: ft.Control) -> ft.AppBar:
    """The upper edge of a screen above another one."""
    words = ft.Text(title, size=20, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
    return ft.AppBar(title=words, bgcolor=ft.Colors.SURFACE, actions=list(actions))


def search(label: str, on_change: Callable[[object], object]) -> ft.TextField:
    """A field to look for words with."""
    return ft.TextField(
        label=label,
        prefix_icon=ft.Icons.SEARCH_ROUNDED,
        border=ft.OutlineInputBorder(border_radius=24, side=ft.BorderSide(0, ft.Colors.TRANSPARENT)),
        dense=True,
        filled=True,
        fill_color=ft.Colors.SURFACE_CONTAINER_HIGH,
        on_change=on_change,
    )
