"""The About screen: the version, and the licences of the model and the packages.

In: the model in use and the installed packages. Out: a screen with fixed content.
"""

from __future__ import annotations

from importlib import metadata

import flet as ft

from impchat_mobile import theme
from impchat_mobile.app_shell import Screen, Shell
from impchat_mobile.views.welcome import LOGO

_PACKAGES = (
    "flet", "llama-cpp-python", "onnxruntime", "numpy", "pillow", "sqlite-utils", "httpx", "httpx-sse", "platformdirs",
)  # fmt: skip


class AboutScreen(Screen):
    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def build(self) -> ft.View:
        shell, say = self._shell, self._shell.say
        bundle = shell.app.bundle
        model = [
            theme.heading(say("mobile.model")),
            self._line(bundle.name, bundle.licence),
        ] if bundle else []  # fmt: skip
        page = ft.ListView(
            [
                ft.Container(
                    ft.Column(
                        [
                            ft.Image(LOGO, width=72, height=72, exclude_from_semantics=True),
                            ft.Text(f"ImpChat {_version('impchat')}", size=22, weight=ft.FontWeight.W_600),
                            ft.Text(say("mobile.about_text"), color=theme.MUTED, text_align=ft.TextAlign.CENTER),
                        ],
                        horizontal_alignment=ft.CrossAxisAlignment.CENTER,
                        spacing=10,
                    ),
                    padding=24,
                    alignment=ft.Alignment.CENTER,
                ),
                *model,
                theme.heading(say("mobile.licences")),
                self._line("ImpChat", "Apache-2.0"),
                *[self._line(f"{name} {_version(name)}", _licence(name)) for name in _PACKAGES if _version(name)],
            ],
            padding=ft.Padding.only(bottom=32),
            expand=True,
        )
        return ft.View(
            [ft.SafeArea(theme.column(page, expand=True), expand=True)],
            padding=0,
            bgcolor=ft.Colors.SURFACE,
            appbar=theme.app_bar(say("mobile.about")),
        )

    def _line(self, name: str, terms: str) -> ft.Control:
        return ft.ListTile(title=ft.Text(name), subtitle=theme.muted(terms, size=13), dense=True)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _licence(package: str) -> str:
    """The licence that the package's metadata names, in its short form if there is one."""
    about = metadata.metadata(package)
    long = "".join(about.get_all("License", []))
    short = "".join(about.get_all("License-Expression", [])) or (long if "\n" not in long else long.splitlines()[0])
    kinds = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    return short or ", ".join(kinds)
