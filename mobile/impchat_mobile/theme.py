"""The colours of both themes, and the basic controls of all screens.

In: a theme or content. Out: Flet's values. The colours are those of ImpChat-Web.
This file does not know any screen.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import flet as ft
from PIL import Image

COLUMN_WIDTH = 720  # maximum width of text in pixels, on tablets and in landscape
WIDE_WIDTH, WIDE_HEIGHT = 900, 560  # from this width and height in pixels, the list of chats is next to the chat
SIDEBAR_WIDTH = 320
CARD_RADIUS = 20
_MIN_SIDE = 48  # minimum width and height of a picture in pixels
_MAX_RATIO = 50  # ratio of the sides beyond which a picture is stretched

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
MUTED = ft.Colors.ON_SURFACE_VARIANT


def theme(dark: bool) -> ft.Theme:
    """The dark or the light theme."""
    return ft.Theme(
        scaffold_bgcolor=ft.Colors.SURFACE,
        color_scheme=ft.ColorScheme(**(_DARK if dark else _LIGHT)),
        appbar_theme=ft.AppBarTheme(elevation=0, elevation_on_scroll=0, bgcolor=ft.Colors.SURFACE),
        page_transitions=ft.PageTransitionsTheme(android=ft.PageTransitionTheme.PREDICTIVE),
    )


def column(content: ft.Control, expand: bool = False) -> ft.Control:
    """`content`, centred and at most COLUMN_WIDTH pixels wide."""
    inner = ft.Container(content, width=COLUMN_WIDTH, expand_loose=True, expand=True)
    return ft.Row([inner], alignment=ft.MainAxisAlignment.CENTER, expand=expand, spacing=0)


def heading(text: str) -> ft.Control:
    """The heading of a group of tiles."""
    return ft.Semantics(
        header=True,
        content=ft.Container(
            ft.Text(text, size=13, weight=ft.FontWeight.W_600, color=ft.Colors.PRIMARY),
            padding=ft.Padding.only(left=20, right=20, top=20, bottom=4),
        ),
    )


def muted(text: str, **options: Any) -> ft.Text:
    """Small text in a muted colour."""
    style: dict[str, Any] = {"size": 12, "color": MUTED}
    return ft.Text(text, **(style | options))


def background(dark: bool) -> str:
    """The background colour of the app."""
    return (_DARK if dark else _LIGHT)["surface"]


def button(
    name: ft.IconData,
    label: str,
    on_click: Callable[[object], object] | None,
    size: int = 24,
    color: str | None = None,
    **options: Any,
) -> ft.IconButton:
    """An icon button of finger size, labelled for screen readers."""
    return ft.IconButton(icon(name, label, size, color), tooltip=label, on_click=on_click, **options)


def icon(name: ft.IconData, label: str, size: int = 24, color: str | None = None) -> ft.Icon:
    """An icon with a label for screen readers. A tooltip is not enough: in a list, all but the first get lost."""
    return ft.Icon(name, size=size, color=color or ft.Colors.ON_SURFACE_VARIANT, semantics_label=label)


def small_button(
    name: ft.IconData, label: str, on_click: Callable[[object], object] | None, **options: Any
) -> ft.IconButton:
    """A small icon button in a muted colour, as below a message."""
    style: dict[str, Any] = {"size": 18, "color": MUTED, "padding": 0, "size_constraints": ft.BoxConstraints(40, 40)}
    return button(name, label, on_click, **(style | options))


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(io.BytesIO(data)) as opened:  # reads only the header
        return opened.size


def picture(data: bytes, width: float, height: float, radius: float, label: str) -> ft.Image:
    """A picture that is scaled to fit into `width` x `height` pixels, but not below a size that can be tapped: the ends
    of a long one are cropped, and a very long one is stretched, so that its content stays visible."""
    sides = size_of(data)
    scale = min(width / sides[0], height / sides[1])
    shown_width, shown_height = (max(side * scale, min(_MIN_SIDE, height)) for side in sides)
    return ft.Image(
        data,
        width=shown_width,
        height=shown_height,
        fit=ft.BoxFit.FILL if max(sides) > _MAX_RATIO * min(sides) else ft.BoxFit.COVER,
        border_radius=radius,
        gapless_playback=True,
        semantics_label=label,
    )


def card(content: ft.Control, **options: Any) -> ft.Container:
    """A card with a raised background."""
    style: dict[str, Any] = {"padding": 16, "border_radius": CARD_RADIUS, "bgcolor": ft.Colors.SURFACE_CONTAINER}
    return ft.Container(content, **(style | options))


def app_bar(title: str, *actions: ft.Control) -> ft.AppBar:
    """The app bar of a screen that has another one below it."""
    text = ft.Text(title, size=20, weight=ft.FontWeight.W_600, max_lines=1, overflow=ft.TextOverflow.ELLIPSIS)
    return ft.AppBar(title=text, bgcolor=ft.Colors.SURFACE, actions=list(actions))


def search_field(label: str, on_change: Callable[[object], object]) -> ft.TextField:
    """A search field."""
    return ft.TextField(
        label=label,
        prefix_icon=ft.Icons.SEARCH_ROUNDED,
        border=ft.OutlineInputBorder(border_radius=24, side=ft.BorderSide(0, ft.Colors.TRANSPARENT)),
        dense=True,
        filled=True,
        fill_color=ft.Colors.SURFACE_CONTAINER_HIGH,
        on_change=on_change,
    )
