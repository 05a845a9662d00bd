"""The wheel as a new user gets it: built, inspected, installed into an empty environment, and asked a question."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# `make` keeps the compiled llama.cpp here: without it, installing would compile for minutes.
WHEELS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "impchat" / "wheels"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    [built] = folder.glob("*.whl")
    return built


def pip(*arguments: str, python: str = sys.executable) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *arguments], check=True)


def test_the_wheel_contains_both_packages_and_the_assets_byte_for_byte(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        for folder in ("imp-demo-196", "samples"):
            files = [path for path in (ROOT / "assets" / folder).rglob("*") if path.is_file()]
            assert files
            for path in files:
                assert packed.read(f"impchat/{path.relative_to(ROOT).as_posix()}") == path.read_bytes()
    page = {f"impchat_web/static/{file.name}" for file in (ROOT / "web/impchat_web/static").iterdir() if file.is_file()}
    assert "impchat_web/static/main.js" in page
    assert {"impchat/cli/main.py", "impchat_web/cli.py"} | page <= names
    top = {name.split("/")[0] for name in names}
    assert top == {
        "impchat",
        "impchat_web",
        "impchat_mobile",
        f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info",
    }


def test_the_installed_wheel_answers_a_question_about_a_picture(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    pip("install", "--find-links", str(WHEELS), str(wheel), python=str(place / "bin" / "python"))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IMPCHAT_DATA": str(tmp_path / "data")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    code = "from impchat import paths; print(paths.samples_dir())"
    samples = Path(run(str(place / "bin" / "python"), "-c", code).strip())
    assert samples.is_relative_to(place)
    answer = run(str(place / "bin" / "impchat"), "ask", str(samples / "shapes.png"), "What colour is the circle?")
    assert "red" in answer
