"""Every imported package is declared in pyproject.toml, so that none is installed only by chance."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.core.hands import ROOT
from tests.package.phone import PROJECT

OURS = ("impchat", "impchat_web", "impchat_mobile", "benchmarks", "tools", "tests")
PARTS = ("impchat", "web", "mobile", "benchmarks", "tools")
# Part of the code -> the extras that it can use besides the core's packages; the longest name counts
EXTRAS = {
    "impchat": set(),
    "impchat/server": {"serve", "cluster"},
    "impchat/bench/plot.py": {"bench"},
    "impchat/cli/serve.py": {"serve"},
    "impchat/models/convert": {"convert"},
    "tools": {"convert"},
    "impchat/models/download.py": {"convert"},
    "benchmarks": {"bench", "convert", "serve", "dev"},
    "web": {"web", "serve"},
    "mobile": {"mobile"},
}


def test_every_import_is_declared() -> None:
    known = packages_distributions()
    undeclared = set()
    for file in (file for part in PARTS for file in (ROOT / part).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        part = max((part for part in EXTRAS if name.startswith(part)), key=len)
        asked = declared("", *EXTRAS[part])
        for module in imported(file) - {*OURS, *sys.stdlib_module_names}:
            if not asked & {plain(owner) for owner in known.get(module, [module])}:
                undeclared.add((module, name))
    assert not undeclared


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def declared(*extras: str) -> set[str]:
    """The packages of the core ("") and of extras, including those that their own extras need."""
    found = set()
    for extra in extras:
        lines = PROJECT["project"]["optional-dependencies"][extra] if extra else PROJECT["project"]["dependencies"]
        for asked in map(Requirement, lines):
            found.add(plain(asked.name))
            for line in requires(asked.name) or [] if asked.extras and asked.name != "impchat" else []:
                brought = Requirement(line)
                if brought.marker and any(brought.marker.evaluate({"extra": wanted}) for wanted in asked.extras):
                    found.add(plain(brought.name))
    return found


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
