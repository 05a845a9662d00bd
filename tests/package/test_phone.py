"""Everything that the app and the core import on a phone is packaged; test_phone_packages.py checks that it is
available."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

from tests.package.phone import ROOT, needed

# Never imported on a phone: other programs of the package, and the app in a desktop's browser.
APART = (
    "impchat/models/convert", "impchat/models/download.py", "impchat/models/add.py", "impchat/models/trial.py",
    "impchat/models/turns.py", "impchat/server", "impchat/cli", "impchat/bench",
    "mobile/impchat_mobile/cli.py", "mobile/impchat_mobile/host.py",
)  # fmt: skip


def packaged() -> set[str]:
    """Everything that is packaged for a phone, with indirect requirements."""
    return {package.name for package in needed("android")}


def imports() -> set[tuple[str, str]]:
    """(file, top-level package) of every import that can run on a phone, except our own packages and Python's."""
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


def test_the_app_and_the_core_import_only_what_is_packaged() -> None:
    sources = packages_distributions()
    here = packaged()
    missing = {
        (path, name)
        for path, name in imports()
        if not {canonicalize_name(source) for source in sources.get(name, [])} & here
    }
    assert missing == set()


@pytest.mark.parametrize("name", ["llama-cpp-python", "onnxruntime"])
def test_the_engines_packages_are_on_a_phone(name: str) -> None:
    assert name in packaged()
