"""A bundle is complete, matches its manifest, and is otherwise refused with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from impchat import bundle
from impchat.bundle import Bundle, ImageRule, TextRule
from impchat.errors import ModelError
from impchat.messages import Sampling

HALF = (0.5, 0.5, 0.5)
NAMES = {"language": ("language.gguf", "q8_0"), "vision": ("vision.onnx", "int8")}


def made(target: Path, language: bytes = b"language", **fields: Any) -> Bundle:
    """Write a bundle to `target` whose files contain no model."""
    described = Bundle(
        path=target,
        id="imp-test",
        name="Imp 测试",
        family="phi2",
        template="phi2",
        image=ImageRule(196, "square", HALF, HALF, "bicubic", 196),
        text=TextRule(add_bos=False, eos=(50295,), stop=("USER:",), system="Be kind."),
        sampling=Sampling(temperature=0.0, max_tokens=64),
        context_tokens=2048,
        licence="Apache-2.0",
        source="a test",
        revision="1",
        demo=True,
        files={},
        figures={"colour": 0.97},
    )
    with bundle.place(target) as folder:
        (folder / "language.gguf").write_bytes(language)
        (folder / "vision.onnx").write_bytes(b"eyes")
        bundle.seal(folder, replace(described, **fields), NAMES)
    return bundle.load(target)


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        bundle.load(path)
    assert str(path) in str(caught.value) and str(path) in caught.value.sentence("zh")
    return caught.value


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first = made(tmp_path / "first")
    assert first.path == tmp_path / "first"
    assert first.text == TextRule(False, (50295,), ("USER:",), "Be kind.")
    assert first.sampling == Sampling(temperature=0.0, max_tokens=64)
    assert first.files["language"].bytes == 8 and first.size_bytes == 12
    assert first.language.read_bytes() == b"language" and first.vision.read_bytes() == b"eyes"
    assert first.figures == {"colour": 0.97}
    first.verify()
    again = json.loads((first.path / bundle.MANIFEST).read_text(encoding="utf-8"))
    assert again == json.loads(json.dumps(bundle.to_manifest(first)))


def test_text_rules_are_read_again_and_are_absent_from_older_bundles(tmp_path: Path) -> None:
    rule = TextRule(False, (1,), nfc=True, plain=True)
    assert made(tmp_path / "new", text=rule).text == rule
    older = made(tmp_path / "older", text=TextRule(False, (1,)))
    assert json.loads((older.path / bundle.MANIFEST).read_text())["text"].keys() == {"add_bos", "eos", "stop"}
    assert not older.text.nfc and not older.text.plain


def test_a_bundle_may_be_moved(tmp_path: Path) -> None:
    first = made(tmp_path / "first")
    first.path.rename(tmp_path / "second")
    assert bundle.load(tmp_path / "second") == replace(first, path=tmp_path / "second")


def test_a_folder_without_a_manifest_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path).code == "model.missing"
    assert refusal(tmp_path / "nowhere").code == "model.missing"
    assert refusal(tmp_path / "file").code == "model.missing"


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        ("id", "../etc", "id"),
        ("id", "", "id"),
        ("name", None, "name"),
        ("family", 2, "family"),
        ("demo", 1, "demo"),
        ("context_tokens", 0, "context_tokens"),
        ("context_tokens", True, "context_tokens"),
        ("image", [], "image"),
        ("image.size", "196", "image.size"),
        ("image.aspect", "stretch", "image.aspect"),
        ("image.mean", [0.5, 0.5], "image.mean"),
        ("image.std", [0.5, 0.5, "x"], "image.std"),
        ("text.eos", [], "text.eos"),
        ("text.eos", ["</s>"], "text.eos"),
        ("text.stop", "USER:", "text.stop"),
        ("sampling.top_p", "high", "sampling.top_p"),
        ("files.vision", None, "files.vision"),
        ("files.language.name", "../language.gguf", "files.language.name"),
        ("files.language.name", "/etc/passwd", "files.language.name"),
        ("files.language.name", "..", "files.language.name"),
        ("files.language.name", "a\\b", "files.language.name"),
        ("files.language.bytes", -1, "files.language.bytes"),
        ("format", "1", "format"),
    ],
)
def test_a_broken_manifest_is_refused_and_the_field_named(
    tmp_path: Path, where: str, value: Any, expected: str
) -> None:
    path = made(tmp_path / "model").path
    manifest = json.loads((path / bundle.MANIFEST).read_text(encoding="utf-8"))
    inner = manifest
    *outer, last = where.split(".")
    for key in outer:
        inner = inner[key]
    inner[last] = value
    (path / bundle.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    error = refusal(path)
    assert error.code == "model.manifest_broken"
    assert expected in str(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 200_000, "\ud800"], ids=range(6))
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = made(tmp_path / "model").path
    (path / bundle.MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refusal(path).code == "model.manifest_broken"


def test_a_bundle_for_a_newer_impchat_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = made(tmp_path / "model").path
    manifest = json.loads((path / bundle.MANIFEST).read_text(encoding="utf-8"))
    (path / bundle.MANIFEST).write_text(json.dumps({"format": 2, "everything": manifest}), encoding="utf-8")
    error = refusal(path)
    assert error.code == "model.format_newer"
    assert error.values["found"] == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    first = made(tmp_path / "model")
    first.vision.unlink()
    error = refusal(first.path)
    assert (error.code, error.values["file"]) == ("model.file_missing", "vision.onnx")


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    first = made(tmp_path / "model")
    first.language.write_bytes(b"languages")
    error = refusal(first.path)
    assert (error.code, error.values["file"]) == ("model.checksum", "language.gguf")


def test_verifying_finds_one_changed_byte(tmp_path: Path) -> None:
    first = made(tmp_path / "model")
    first.language.write_bytes(b"Language")
    again = bundle.load(first.path)  # does not read the whole files
    with pytest.raises(ModelError) as caught:
        again.verify()
    assert (caught.value.code, caught.value.values["file"]) == ("model.checksum", "language.gguf")


def test_a_failure_during_writing_leaves_nothing_or_the_older_bundle(tmp_path: Path) -> None:
    target = tmp_path / "imp"

    def fail() -> None:
        with pytest.raises(ZeroDivisionError), bundle.place(target) as folder:
            (folder / "language.gguf").write_bytes(b"half")
            raise ZeroDivisionError

    fail()
    assert not [*tmp_path.iterdir()]
    older = made(target, b"older")
    fail()
    assert [*tmp_path.iterdir()] == [target]
    assert bundle.load(target) == older


def test_a_killed_process_leaves_no_half_bundle_and_the_next_try_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "imp"
    killed = """if True:
        import os, pathlib, signal, sys
        from impchat import bundle
        with bundle.place(pathlib.Path(sys.argv[1])) as folder:
            (folder / "language.gguf").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", killed, str(target)], check=False)
    assert done.returncode < 0
    assert refusal(target).code == "model.missing"
    assert made(target).language.read_bytes() == b"language"
    assert [p.name for p in tmp_path.iterdir()] == ["imp"]


def test_a_process_killed_between_the_two_renames_loses_no_bundle(tmp_path: Path) -> None:
    target = tmp_path / "imp"
    older = made(target, b"older")
    older.path.rename(tmp_path / ".imp.old")  # the state between the renames
    with pytest.raises(ZeroDivisionError), bundle.place(target):
        raise ZeroDivisionError
    assert bundle.load(target).language.read_bytes() == b"older"


def test_a_newer_bundle_replaces_the_older_one(tmp_path: Path) -> None:
    made(tmp_path / "imp", b"older")
    assert made(tmp_path / "imp", b"newer").language.read_bytes() == b"newer"
    assert [p.name for p in tmp_path.iterdir()] == ["imp"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "holiday" / "photo.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"jpeg")
    for target in (mine.parent, mine, tmp_path):
        with pytest.raises(ModelError) as caught:
            made(target)
        assert caught.value.code == "model.target_occupied"
    assert mine.read_bytes() == b"jpeg"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError) as caught:
        made(tmp_path / "file" / "imp")
    assert caught.value.code == "model.target_unwritable"
    assert str(tmp_path / "file" / "imp") in str(caught.value)
