"""`impchat convert` on the command line: its messages and their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from impchat import bundle, texts
from impchat.cli.main import main
from tests.convert.conftest import Tiny
from tests.core.hands import run_without

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def test_work_is_announced_when_it_begins(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    source, target = make_checkpoint(Tiny()), tmp_path / "imp-test"
    assert main(["convert", str(source), str(target), "--language", "f16", "--vision", "fp32"]) == 0
    begun, done = capsys.readouterr().err.splitlines()
    assert "Converting" in begun
    assert str(target) in done
    assert bundle.load(target).id == "imp-test"


def test_a_checkpoint_that_cannot_be_converted_is_reported_at_once(
    make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    source = make_checkpoint(Tiny())
    (source / "tokenizer.json").unlink()
    assert main(["convert", str(source), str(tmp_path / "imp-test")]) == 2
    assert "Converting" not in capsys.readouterr().err


def test_the_extra_is_named_before_work_begins(make_checkpoint: Make, tmp_path: Path) -> None:
    done = run_without(["onnx"], tmp_path / "data", "convert", make_checkpoint(Tiny()), tmp_path / "imp-test")
    assert done.returncode == 2
    assert texts.install("convert") in done.stderr
    assert len(done.stderr.splitlines()) == 1
