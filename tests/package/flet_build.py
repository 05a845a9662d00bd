"""The steps of `flet build` without a toolchain: Flet's own command, from its settings to the rendered project.

In: a folder with a pyproject.toml, and a target: "apk", "aab" or "ipa". Out: `Build`: the rendered project and the
commands that Flet would run next. Flutter, the JDK and the Android SDK are neither searched nor downloaded, so Gradle,
Xcode and pip do not run; .github/workflows/mobile.yml runs them.

If IMPCHAT_FLET_TEMPLATE names a folder with Flet's own template ("flet": the one that this version of Flet downloads),
the project is rendered from it, otherwise from the small one in this folder, which contains the same values.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The Python that Flet 1.0.5 bundles, from python-build's manifest.json; `flet build` downloads it.
PYTHONS = {
    "default_python_version": "3.14",
    "pythons": {
        short: {
            "full_version": full,
            "pyodide_version": "0",
            "android_abis": ["arm64-v8a", "x86_64", "armeabi-v7a"],
            "prerelease": False,
        }
        for short, full in {"3.12": "3.12.13", "3.13": "3.13.14", "3.14": "3.14.6"}.items()
    },
}


@dataclass
class Build:
    """The result of `flet build`."""

    project: Path  # the rendered Flutter project
    python: str  # the bundled Python, "3.14"
    values: dict[str, Any]  # the values passed to the template
    packaging: list[str] = field(default_factory=list)  # the command that runs pip for the phone
    environment: dict[str, str] = field(default_factory=dict)  # for that command
    building: list[str] = field(default_factory=list)  # the command that runs Flutter


class Refused(Exception):
    """Flet refused the settings."""


def prepare(folder: Path, target: str, *options: str) -> Build:
    """Run all steps of `flet build TARGET` in `folder`. Raises Refused."""
    os.environ["FLET_CLI_NO_RICH_OUTPUT"] = "1"
    from flet_cli.commands.build import Command
    from flet_cli.commands.build_base import console
    from rich.live import Live

    ran: list[tuple[list[str], dict[str, str]]] = []

    class WithoutToolchain(Command):
        def find_flutter_batch(self, exe_filename: str) -> str:
            return f"/no/{exe_filename}"

        def flutter_version_valid(self) -> bool:
            return True

        def _confirm_android_sdk_installation(self) -> bool:
            return True

        def install_jdk(self) -> None:
            pass

        def install_android_sdk(self) -> None:
            pass

        def run(self, args: list[str], cwd: str, env: dict[str, str] | None = None, capture_output: bool = True) -> Any:
            ran.append((list(args), dict(env or {})))
            (self.build_dir / "python-app").mkdir(parents=True, exist_ok=True)
            return SimpleNamespace(returncode=0, stdout="", stderr="")

        def cleanup(self, exit_code: int, message: Any = None, no_border: bool = False) -> None:
            raise Refused(str(message))

    parser = argparse.ArgumentParser()
    command = WithoutToolchain(parser)
    given = parser.parse_args([target, str(folder), "--yes", *_template(), *options])
    super(Command, command).handle(given)
    if target == "ipa":
        command.current_platform = "Darwin"  # iOS is built on macOS
    command.status = console.status("")
    with _manifest(folder), redirect_stdout(io.StringIO()), Live("", console=console) as command.live:
        command.initialize_command()
        command.validate_target_platform()
        command.validate_entry_point()
        command.setup_template_data()
        command.create_flutter_project()
        command.package_python_app()
        command.customize_icons()
        command.customize_splash_images()
        command.run_flutter()
    (packaging, environment), (building, _) = ran
    values = command.template_data
    return Build(command.flutter_dir, command.python_release.short, values, packaging, environment, building)


def _template() -> list[str]:
    chosen = os.environ.get("IMPCHAT_FLET_TEMPLATE", str(HERE / "template"))
    return [] if chosen == "flet" else ["--template", chosen]


@contextmanager
def _manifest(folder: Path) -> Iterator[None]:
    """Give Flet the list of Python versions that it would download."""
    place = folder / "pythons.json"
    place.write_text(json.dumps(PYTHONS))
    os.environ["FLET_PYTHON_BUILD_MANIFEST"] = str(place)
    try:
        yield
    finally:
        del os.environ["FLET_PYTHON_BUILD_MANIFEST"]


def copy_of_the_project(target: Path, changes: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Copy the files that `flet build` reads to a folder that it can write to. `changes`: text of pyproject.toml ->
    its replacement."""
    target.mkdir()
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for old, new in changes.items():
        assert settings.count(old) == 1, old
        settings = settings.replace(old, new)
    (target / "pyproject.toml").write_text(settings, encoding="utf-8")
    shutil.copytree(ROOT / "mobile", target / "mobile", ignore=shutil.ignore_patterns("__pycache__"))
    return target
