"""Real vocabularies, with texts and the token ids that llama.cpp's own tests expect.

The source distribution of llama-cpp-python contains them among llama.cpp's tests. They are not part of this repository:
pip downloads the version in pyproject.toml once per machine, and the needed files are kept in the cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.hands import ROOT

NAMES = ("gpt-2", "phi-3", "qwen2")
_BETWEEN = "\n__ggml_vocab_test__\n"
_ENDS = (".gguf", ".gguf.inp", ".gguf.out")


@dataclass(frozen=True)
class Known:
    """A vocabulary, and texts with their ids."""

    gguf: Path
    texts: list[tuple[str, list[int]]]


def known(name: str) -> Known:
    """The vocabulary of this name, downloaded if it is not in the cache."""
    gguf, asked, answered = (_folder() / f"ggml-vocab-{name}{end}" for end in _ENDS)
    texts = asked.read_bytes().decode().removesuffix(_BETWEEN).split(_BETWEEN)  # some contain a "\r"
    ids = [[int(n) for n in line.split()] for line in answered.read_bytes().decode().splitlines()]
    return Known(gguf, list(zip(texts, ids, strict=True)))


def _folder() -> Path:
    requirement = _requirement()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "impchat" / "vocabularies" / requirement
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            _unpack(_fetch(requirement, Path(work)), Path(work) / "whole")
            try:
                (Path(work) / "whole").rename(folder)
            except OSError:  # another process was first
                assert folder.is_dir()
    return folder


def _requirement() -> str:
    """The requirement of llama-cpp-python for desktops in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(
        text.partition(";")[0] for text in project["dependencies"] if "llama-cpp-python" in text and "!=" in text
    )


def _fetch(requirement: str, into: Path) -> Path:
    words = ["--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(into), requirement]
    done = subprocess.run([sys.executable, "-m", "pip", "download", *words], capture_output=True, text=True)
    found = [*into.glob("llama_cpp_python-*.tar.gz")]
    if not found:
        pytest.fail(
            f"The vocabularies for this test lie in the source distribution of {requirement}, which pip could not "
            "fetch: connect to a package index and run the test again (once per machine; it is then kept in the cache)."
            f"\n{done.stderr}",
            pytrace=False,
        )
    return found[0]


def _unpack(archive: Path, folder: Path) -> None:
    wanted = {f"ggml-vocab-{name}{end}" for name in NAMES for end in _ENDS}
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name in wanted and "/vendor/llama.cpp/models/" in member.name:
                source = tar.extractfile(member)
                assert source is not None
                with source, (folder / name).open("wb") as out:
                    shutil.copyfileobj(source, out)
                wanted.discard(name)
    assert not wanted, f"{archive.name} lacks {', '.join(sorted(wanted))}"
