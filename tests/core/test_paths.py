"""The folders that ImpChat uses: a chosen data folder holds everything."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from impchat import paths
from impchat.cli.main import main
from impchat.errors import HistoryError

TELL = """
from impchat import paths
data = paths.data_dir()
for path in (data, paths.cache_dir(), paths.history_file(data), paths.models_dir(data)):
    print(path)
"""


def reported_paths(**environment: str) -> list[Path]:
    known = {name: value for name, value in os.environ.items() if name != "IMPCHAT_DATA" and "XDG" not in name}
    done = subprocess.run(
        [sys.executable, "-c", TELL], env=known | environment, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.splitlines()]


def test_a_chosen_data_folder_holds_everything(tmp_path: Path) -> None:
    data = tmp_path / "mine"
    assert reported_paths(IMPCHAT_DATA=str(data)) == [data, data / "cache", data / "history.db", data / "models"]
    assert not data.exists()  # asking for a path creates nothing


def test_a_chosen_data_folder_can_begin_with_a_tilde(tmp_path: Path) -> None:
    assert reported_paths(IMPCHAT_DATA="~/imp", HOME=str(tmp_path))[0] == tmp_path / "imp"


def test_the_default_data_folder_is_below_the_home_folder(tmp_path: Path) -> None:
    for path in reported_paths(HOME=str(tmp_path), USERPROFILE=str(tmp_path)):
        assert path.is_relative_to(tmp_path) and "impchat" in str(path).lower()


NOBODY = """
import sys
sys.modules["pwd"] = None  # how a user looks that the system does not know
from impchat.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", ["doctor", "ask Hello!", "serve"])
def test_a_user_without_a_home_folder_is_reported_in_one_sentence(tmp_path: Path, words: str) -> None:
    known = {name: value for name, value in os.environ.items() if name not in ("HOME", "IMPCHAT_DATA", "XDG_DATA_HOME")}
    command = [sys.executable, "-c", NOBODY, *words.split(), "--language", "en"]
    done = subprocess.run(command, env=known, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no home folder" in done.stderr and "IMPCHAT_DATA" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_the_home_folder_of_an_unknown_user_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--data", "~nosuchuser/x"]) == 2
    monkeypatch.setenv("IMPCHAT_DATA", "~nosuchuser/x")
    assert main(["ask", "Hello!"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert [line.split()[0] for line in output.err.splitlines()] == ["~nosuchuser/x"] * 2
    assert main(["doctor", "--data", ""]) == 2
    assert "--data needs a value" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_data_folder_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    made = paths.ensure_data_dir(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert paths.ensure_data_dir(made) == made


def test_a_data_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="IMPCHAT_DATA"):
        paths.ensure_data_dir(tmp_path / "file" / "data")


def test_a_checkout_uses_the_assets_next_to_the_package() -> None:
    assert paths.demo_bundle().name == "imp-demo-196"
    assert paths.demo_bundle().parent == paths.samples_dir().parent
    assert paths.demo_bundle().parent.name == "assets"
