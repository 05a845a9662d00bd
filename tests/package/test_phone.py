"""What the app and the core import on a phone exists for phones: pure Python, or a wheel of Flet's own index.

That index cannot be asked here; the list is what Flet's builders (mobile-forge) make for Python 3.12 to 3.14."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

PHONE_WHEELS = {
    "llama-cpp-python", "onnxruntime", "numpy", "pillow", "pydantic-core", "jiter", "tokenizers", "safetensors",
    "msgpack", "opencv-python-headless", "markupsafe", "protobuf",
}  # fmt: skip

# Never imported on a phone: other programs of the package, and the app's way into a desktop's browser.
APART = (
    "impchat/models/convert", "impchat/models/demo", "impchat/models/download.py", "impchat/models/add.py",
    "impchat/models/trial.py", "impchat/models/turns.py", "impchat/engines/torch.py", "impchat/server", "impchat/bench",
    "impchat/cli", "impchat/terminal.py", "impchat/doctor.py",
    "mobile/impchat_mobile/cli.py", "mobile/impchat_mobile/host.py",
)  # fmt: skip
# Imported where they are installed: finding servers on the network.
OPTIONAL = {"zeroconf"}

# How pip sees a phone: Flet's packager sets platform_system for its target.
PHONE = {"platform_system": "Android", "sys_platform": "linux", "extra": ""}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def packaged() -> dict[str, Requirement]:
    """Everything that is packaged for a phone, requirements of requirements too, by normal name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    waiting = [Requirement(line) for line in project["project"]["dependencies"]]
    waiting += [Requirement(line) for line in project["tool"]["flet"]["android"]["dependencies"]]
    found: dict[str, Requirement] = {}
    while waiting:
        wanted = waiting.pop()
        name = normal(wanted.name)
        if name in found or name == "impchat" or (wanted.marker and not wanted.marker.evaluate(PHONE)):
            continue
        found[name] = wanted
        waiting += [Requirement(line) for line in distribution(name).requires or []]
    return found


def imports() -> set[tuple[str, str]]:
    """(file, top-level package) of every import that a phone may come to, but for our own and Python's."""
    own = {"impchat", "impchat_mobile"}
    found = set()
    for folder in ("impchat", "mobile"):
        for file in (ROOT / folder).rglob("*.py"):
            path = file.relative_to(ROOT).as_posix()
            if path.startswith(APART):
                continue
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                found |= {(path, name.partition(".")[0]) for name in names}
    return {(path, name) for path, name in found if name not in own | sys.stdlib_module_names}


def test_every_package_on_the_phone_is_pure_python_or_has_a_phone_wheel() -> None:
    impure = []
    for name in packaged().keys() - PHONE_WHEELS:
        wheel = distribution(name).read_text("WHEEL") or ""
        if "Root-Is-Purelib: true" not in wheel or "-none-any" not in wheel:
            impure.append(name)
    assert impure == []


def test_the_app_and_the_core_import_only_what_is_packaged() -> None:
    sources = packages_distributions()
    here = packaged().keys()
    missing = {
        (path, name)
        for path, name in imports()
        if name not in OPTIONAL and not {normal(source) for source in sources.get(name, [])} & here
    }
    assert missing == set()


@pytest.mark.parametrize("name", ["llama-cpp-python", "onnxruntime"])
def test_the_engine_has_its_packages_on_a_phone(name: str) -> None:
    assert name in packaged()
