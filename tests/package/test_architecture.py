"""The file tree of docs/architecture.md is complete, its paths exist, and the page's modules import downwards in it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tree() -> list[str]:
    """The paths of the fenced block under "## Files": one per line, indented by two spaces for each folder, followed
    by a description."""
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n## Files\n", 1)[1]
    block = section.split("```", 2)[1].split("\n", 1)[1]
    paths, folders = [], []
    for indent, name in re.findall(r"^( *)(\S+)", block, re.MULTILINE):
        del folders[len(indent) // 2 :]
        folders.append(name)
        paths.append("".join(folders) if len(indent) % 2 == 0 else f"{name} (odd indentation)")
    return paths


def test_every_path_of_the_tree_exists() -> None:
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_the_tree_names_every_file() -> None:
    named = set(tree())
    opened = {path.removesuffix("/").rpartition("/")[0] + "/" for path in named}
    closed = tuple(path for path in named - opened if path.endswith("/"))  # such a line stands for the whole folder
    files = {
        path.relative_to(ROOT).as_posix().removesuffix("__init__.py")  # covered by the folder's line
        for folder in named
        if folder.count("/") == 1 and folder.endswith("/")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert sorted(path for path in files - named if not path.startswith(closed)) == []


def test_a_module_of_the_page_imports_only_modules_below_it() -> None:
    modules = [path for path in tree() if path.endswith(".js")]
    for number, path in enumerate(modules):
        imported = re.findall(r'"\./([\w-]+\.js)"', (ROOT / path).read_text(encoding="utf-8"))
        below = {Path(other).name for other in modules[number + 1 :]}
        assert set(imported) <= below, path
