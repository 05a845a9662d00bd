"""A phone imports ImpChat from inside a zip. Its model is a real file all the same, and a bad copy of it is mended."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from impchat import paths, shipped
from impchat.errors import ModelError

ROOT = Path(__file__).parents[2]
ASK = """
from impchat import paths
from impchat.cli.main import main
picture = next(path for path in paths.samples() if path.name == "shapes.png")
print(paths.__file__, paths.demo_bundle(), sep="\\n")
main(["ask", str(picture), "What colour is the circle?"])
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and what ships with it, as Flet's packager lays them into a zip: stored, not compressed."""
    archive = tmp_path_factory.mktemp("phone") / "sitepackages.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((ROOT / "impchat").rglob("*.py")):
            packed.write(path, path.relative_to(ROOT))
        for folder in ("imp-demo-196", "samples"):
            for path in sorted((ROOT / "assets" / folder).iterdir()):
                packed.write(path, Path("impchat") / path.relative_to(ROOT))
    return archive


def ask(package: Path, data: Path) -> tuple[Path, Path, str]:
    """What a process says that finds ImpChat in the zip alone: its module, its model, its answer."""
    environment = os.environ | {"PYTHONPATH": str(package), "IMPCHAT_DATA": str(data)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=data, env=environment, capture_output=True, text=True, check=True
    )
    module, model, answer = done.stdout.split("\n", 2)
    return Path(module), Path(model), answer


def test_from_inside_a_zip_a_question_is_answered_and_a_bad_copy_of_the_model_is_mended(
    package: Path, tmp_path: Path
) -> None:
    module, model, answer = ask(package, tmp_path)
    assert module.is_relative_to(package)
    assert model.is_relative_to(tmp_path)
    assert "red" in answer
    language = model / "language.gguf"
    whole = language.read_bytes()
    language.write_bytes(whole[:-1])  # cut short: the disk was full
    (model / "vision.onnx").unlink()
    (model / "impchat.json").write_bytes(bytes((model / "impchat.json").stat().st_size))  # lost behind the file's name
    assert "red" in ask(package, tmp_path)[2]
    assert language.read_bytes() == whole
    assert sorted(path.name for path in model.iterdir()) == ["impchat.json", "language.gguf", "vision.onnx"]


def test_a_whole_copy_is_left_as_it_is(package: Path, tmp_path: Path) -> None:
    copy = shipped.unpack(package, "impchat/assets/", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert shipped.unpack(package, "impchat/assets/", tmp_path) == copy
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    copied = copy / "imp-demo-196" / "language.gguf"
    assert copied.read_bytes() == (paths.demo_bundle() / "language.gguf").read_bytes()


def test_a_place_that_cannot_be_written_is_told(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file"):
        shipped.unpack(package, "impchat/assets/", tmp_path / "file")
