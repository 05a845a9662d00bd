"""Verified files of a model: a changed file is noticed at the next start, an unchanged one is not read again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from impchat import bundle as bundles
from impchat.bundle import Bundle
from impchat.errors import ModelError
from impchat.models import verified
from tests.core.hands import copy_model


@pytest.fixture
def model(tmp_path: Path, demo: Bundle) -> Bundle:
    return bundles.load(copy_model(demo.path, tmp_path / "model"))


def damaged(good: bytes) -> bytes:
    return good[:-1] + bytes([good[-1] ^ 1])


def refusal(data: Path, model: Bundle, *, reread: bool = False) -> str:
    with pytest.raises(ModelError) as caught:
        verified.verify(data, model, reread=reread)
    assert caught.value.values["file"] == model.language.name
    return caught.value.code


def test_a_file_that_is_rewritten_is_noticed_even_with_its_size_and_time_set_back(
    tmp_path: Path, model: Bundle
) -> None:
    verified.verify(tmp_path, model)
    good, before = model.language.read_bytes(), model.language.stat()
    model.language.write_bytes(damaged(good))
    os.utime(model.language, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert refusal(tmp_path, model) == "model.checksum"
    assert refusal(tmp_path, model) == "model.checksum"
    model.language.write_bytes(good)
    verified.verify(tmp_path, model)


def test_a_file_that_is_replaced_is_noticed(tmp_path: Path, model: Bundle) -> None:
    verified.verify(tmp_path, model)
    other = tmp_path / "other"
    other.write_bytes(damaged(model.language.read_bytes()))
    shutil.copystat(model.language, other)
    other.replace(model.language)
    assert refusal(tmp_path, model) == "model.checksum"


def test_a_file_of_another_manifest_is_noticed(tmp_path: Path, model: Bundle) -> None:
    verified.verify(tmp_path, model)
    manifest = json.loads((model.path / bundles.MANIFEST).read_text())
    manifest["files"]["language"]["sha256"] = "0" * 64
    (model.path / bundles.MANIFEST).write_text(json.dumps(manifest))
    assert refusal(tmp_path, bundles.load(model.path)) == "model.checksum"


def test_an_unchanged_file_is_read_only_on_demand(tmp_path: Path, model: Bundle) -> None:
    verified.verify(tmp_path, model)
    # The disk damages the file: its content changes, and nothing that the system records about it.
    model.language.write_bytes(damaged(model.language.read_bytes()))
    remembered = json.loads((tmp_path / "verified.json").read_text())
    found = model.language.stat()
    state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
    remembered[str(model.language)][1:] = state
    (tmp_path / "verified.json").write_text(json.dumps(remembered))

    verified.verify(tmp_path, model)
    assert refusal(tmp_path, model, reread=True) == "model.checksum"
    assert refusal(tmp_path, model) == "model.checksum", "what was found stays known"


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff", b'{"path": 3}', b"[" * 100_000])
def test_a_broken_memory_of_verified_files_is_made_anew(tmp_path: Path, model: Bundle, content: bytes) -> None:
    (tmp_path / "verified.json").write_bytes(content)
    verified.verify(tmp_path, model)
    assert set(json.loads((tmp_path / "verified.json").read_text())) == {
        str(model.path / file.name) for file in model.files.values()
    }
    assert (tmp_path / "verified.json").stat().st_mode & 0o777 == 0o600


def test_files_are_verified_where_nothing_can_be_remembered(tmp_path: Path, model: Bundle) -> None:
    verified.verify(tmp_path / "no folder", model)
    model.language.write_bytes(damaged(model.language.read_bytes()))
    assert refusal(tmp_path / "no folder", model) == "model.checksum"
