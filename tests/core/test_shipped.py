"""The phone app imports ImpChat from a zip: its model is unpacked to real files, and damaged copies are replaced."""

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
    """The package and its assets in a zip, as Flet packs them: stored, not compressed."""
    archive = tmp_path_factory.mktemp("phone") / "sitepackages.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((ROOT / "impchat").rglob("*.py")):
            packed.write(path, path.relative_to(ROOT))
        for folder in ("imp-demo-196", "samples"):
            for path in sorted((ROOT / "assets" / folder).iterdir()):
                packed.write(path, Path("impchat") / path.relative_to(ROOT))
    return archive


def ask(package: Path, data: Path) -> tuple[Path, Path, str]:
    """Run ImpChat from the zip in a separate process; return the path of its module, the path of its model, and its
    answer."""
    environment = os.environ | {"PYTHONPATH": str(package), "IMPCHAT_DATA": str(data)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=data, env=environment, capture_output=True, text=True, check=True
    )
    module, model, answer = done.stdout.split("\n", 2)
    return Path(module), Path(model), answer


def test_from_inside_a_zip_a_question_is_answered_and_a_damaged_copy_of_the_model_is_replaced(
    package: Path, tmp_path: Path
) -> None:
    module, model, answer = ask(package, tmp_path)
    assert module.is_relative_to(package)
    assert model.is_relative_to(tmp_path)
    assert "red" in answer
    language = model / "language.gguf"
    whole = language.read_bytes()
    language.write_bytes(whole[:-1])  # truncated by a full disk
    (model / "vision.onnx").unlink()
    (model / "impchat.json").write_bytes(bytes((model / "impchat.json").stat().st_size))  # lost content, right size
    assert "red" in ask(package, tmp_path)[2]
    assert language.read_bytes() == whole
    assert sorted(path.name for path in model.iterdir()) == ["impchat.json", "language.gguf", "vision.onnx"]


def test_an_intact_copy_is_left_unchanged(package: Path, tmp_path: Path) -> None:
    copy = shipped.unpack(package, "impchat/assets/", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert shipped.unpack(package, "impchat/assets/", tmp_path) == copy
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
    copied = copy / "imp-demo-196" / "language.gguf"
    assert copied.read_bytes() == (paths.demo_bundle() / "language.gguf").read_bytes()


def test_a_folder_that_cannot_be_written_is_reported(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file"):
        shipped.unpack(package, "impchat/assets/", tmp_path / "file")
