"""The packages on a phone: the app's requirements and their requirements, as pip resolves them for Android and iOS.

    python -m tests.package.phone       # prints them with the phone's versions, for pip

In: pyproject.toml, phone_wheels.txt in this folder, and the metadata of the installed packages. Out: names, versions
and whether a package is pure Python. No package index is used.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

Phone = Literal["android", "ios"]
PYTHON = {"python_version": "3.14", "python_full_version": "3.14.6", "extra": ""}
# Flet's packager sets platform_system to the target; sys_platform stays that of the build machine.
MARKERS = {
    "android": PYTHON | {"platform_system": "Android", "sys_platform": "linux"},
    "ios": PYTHON | {"platform_system": "iOS", "sys_platform": "darwin"},
}


@dataclass(frozen=True)
class Needed:
    """A package on the phone."""

    name: str
    pure: bool  # its wheel runs on any platform
    asked: tuple[Requirement, ...]  # the requirements of the packages that need it


def wheels() -> dict[str, str]:
    """Name -> version of the compiled packages that are available for phones."""
    lines = (HERE / "phone_wheels.txt").read_text(encoding="utf-8").splitlines()
    return {name: version for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))}


def needed(phone: Phone) -> list[Needed]:
    """Every package that the app installs on the phone, except the app itself."""
    asked: dict[str, list[Requirement]] = {}
    todo = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    todo += [Requirement(line) for line in PROJECT["tool"]["flet"][phone]["dependencies"] if line != "impchat"]
    while todo:
        requirement = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate(MARKERS[phone]):
            continue
        name = canonicalize_name(requirement.name)
        if name not in asked:
            asked[name] = []
            todo += [Requirement(line) for line in distribution(name).requires or []]
        asked[name].append(requirement)
    return [Needed(name, _is_pure(name), tuple(asked[name])) for name in sorted(asked)]


def _is_pure(name: str) -> bool:
    return "Root-Is-Purelib: true" in (distribution(name).read_text("WHEEL") or "")


if __name__ == "__main__":
    versions = wheels()
    for package in needed("android"):
        print(f"{package.name}=={versions[package.name]}" if package.name in versions else package.name)
