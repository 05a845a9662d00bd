"""A checkpoint is converted one weight file at a time: after any interruption, the bundle is the same."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.eyes import embeddings
from impchat import bundle
from impchat.errors import ModelError
from impchat.models.convert import Conversion, checkpoint, convert, discard, layouts
from impchat.models.convert import vision as eyes
from impchat.models.convert.checkpoint import Checkpoint
from tests.convert import checkpoints
from tests.convert.checkpoints import Tiny

TINY = Tiny(heads=2, layers=2, eyes_hidden=32, eyes_heads=1, eyes_layers=1, eyes_mlp=64)
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link", "shutil.rmtree")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("source") / "checkpoint", TINY, shards=3)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a conversion in one go."""
    return content(convert(source, tmp_path_factory.mktemp("whole") / "model", language="q8_0").path)


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def begin(source: Path, target: Path) -> Conversion:
    return Conversion(source, target, language="q8_0")


def go_on(source: Path, target: Path) -> bundle.Bundle:
    conversion = begin(source, target)
    for file in conversion.files:
        conversion.take(source / file)
    return conversion.finish()


def test_files_can_be_deleted_after_their_conversion_and_arrive_in_any_order(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    small = tmp_path / "checkpoint"  # its name is stored in the manifest
    small.mkdir()
    for file in source.iterdir():
        if file.suffix == ".json":
            (small / file.name).write_bytes(file.read_bytes())
    target = tmp_path / "model"
    for n in (3, 1, 2):
        conversion = begin(small, target)  # a new object each time, as after a restart
        file = small / f"model-{n:05}-of-00003.safetensors"
        assert file.name in conversion.files
        file.write_bytes((source / file.name).read_bytes())
        conversion.take(file)
        file.unlink()
        assert file.name not in conversion.files
    assert begin(small, target).files == ()
    assert not target.exists()
    begin(small, target).finish()
    assert content(target) == whole
    assert {file.name for file in tmp_path.iterdir()} == {"checkpoint", "model"}


def test_the_split_into_files_does_not_change_the_bundle(whole: dict[str, bytes], tmp_path: Path) -> None:
    for shards in (1, 5):
        path = checkpoints.write(tmp_path / str(shards) / "checkpoint", TINY, shards=shards)
        assert content(go_on(path, tmp_path / "target" / "model").path) == whole


def kill_at(step: int) -> None:
    """Kill this process before its change number `step` to the disk."""
    seen = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def killed(work: Callable[[], object], step: int) -> bool:
    """Run `work` in a child that is killed at `step`; False if it finished before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            kill_at(step)
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the conversion failed"
    return os.WIFSIGNALED(status)


def test_a_conversion_killed_at_any_moment_continues_to_the_same_bundle(
    source: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    target = tmp_path / "models" / "model"
    steps = 0
    for step in (1, 2, 3, 5, 8, 40, 90, 120, 150, 4, 2):  # one after the other, each on what the last one left
        steps += killed(lambda: go_on(source, target), step)
        assert not target.exists() or content(target) == whole, "the target holds an incomplete bundle"
    assert steps > 5
    go_on(source, target)
    assert content(target) == whole
    assert [file.name for file in target.parent.iterdir()] == ["model"]


def test_work_on_another_checkpoint_starts_again(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    other = checkpoints.write(tmp_path / "other", TINY, lambda t, config: config.update(rope_theta=5000.0), shards=3)
    target = tmp_path / "model"
    conversion = begin(other, target)
    conversion.take(other / conversion.files[0])
    assert len(begin(other, target).files) == 2
    assert content(go_on(source, target).path) == whole


def test_a_file_that_differs_from_the_index_is_refused_and_can_be_supplied_again(source: Path, tmp_path: Path) -> None:
    conversion = begin(source, tmp_path / "model")
    name = conversion.files[1]
    tensors = load_file(source / name)
    first = min(tensors)
    for spoilt, code in (
        ({n: t for n, t in tensors.items() if n != first}, "checkpoint.tensors_missing"),
        (tensors | {"more": np.zeros(1, "f4")}, "checkpoint.tensors_unknown"),
        (tensors | {first: tensors[first][:-1]}, "checkpoint.tensor_shape"),
    ):
        save_file(spoilt, tmp_path / name)
        with pytest.raises(ModelError) as refused:
            conversion.take(tmp_path / name)
        assert refused.value.code == code
        assert name in conversion.files
    (tmp_path / name).write_bytes((source / name).read_bytes()[:-5])
    with pytest.raises(ModelError) as cut:
        conversion.take(tmp_path / name)
    assert cut.value.code == "checkpoint.broken"
    conversion.take(source / name)
    assert name not in conversion.files


def test_a_value_too_large_for_16_bits_is_named(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.fc1.weight"

    def spoil(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors[name][0, 0] = 1e6

    path = checkpoints.write(tmp_path / "checkpoint", TINY, spoil)
    with pytest.raises(ModelError) as caught:
        convert(path, tmp_path / "model")
    assert caught.value.code == "checkpoint.overflow" and name in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint"]


def test_errors_are_raised_before_any_weight_file_is_present(tmp_path: Path) -> None:
    path = checkpoints.write(tmp_path / "checkpoint", TINY, lambda t, config: t.pop("lm_head.bias"), shards=2)
    for file in path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelError) as caught:
        begin(path, tmp_path / "model")
    assert caught.value.code == "checkpoint.tensors_missing" and "lm_head.bias" in str(caught.value)


def test_the_estimated_disk_space_is_enough(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    for language, vision in (("f16", "fp32"), ("q8_0", "fp16")):
        conversion = Conversion(source, target, language=language, vision=vision)
        for file in conversion.files:
            conversion.take(source / file)
        work = sum(file.stat().st_size for file in bundle.work_folder(target).iterdir())
        needed = conversion.needs_bytes
        # In so small a file the header is the largest part, and stays the same with fewer bits per value.
        made = conversion.finish()
        assert needed * 1.2 + 50_000 > work + made.size_bytes > 0.5 * needed


def test_a_given_version_is_stored_in_the_manifest(source: Path, tmp_path: Path) -> None:
    conversion = Conversion(source, tmp_path / "model", language="f16", vision="fp32", revision="abc123")
    for file in conversion.files:
        conversion.take(source / file)
    assert conversion.finish().revision == "abc123"


def test_large_vision_weights_are_stored_next_to_their_graph_and_checked(
    source: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vision.onnx").write_bytes(whole["vision.onnx"])
    monkeypatch.setattr(eyes, "APART_BYTES", 1)
    made = convert(source, tmp_path / "model", language="q8_0")
    weights = made.path / made.files[bundle.VISION_DATA].name
    assert made.size_bytes == sum(len(data) for name, data in content(made.path).items() if name != bundle.MANIFEST)
    assert made.vision.stat().st_size + weights.stat().st_size < 1.1 * len(whole["vision.onnx"])
    seen, expected = (embeddings(path)[0] for path in (made.vision, tmp_path / "vision.onnx"))
    assert np.array_equal(seen, expected)
    made.verify()
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match=f"{weights.name} .* is not the one"):
        made.verify()
    weights.unlink()
    with pytest.raises(ModelError, match=weights.name):
        bundle.load(made.path)


def test_an_abandoned_conversion_can_be_discarded(source: Path, tmp_path: Path) -> None:
    begin(source, tmp_path / "model")
    discard(tmp_path / "model")
    assert not [*tmp_path.iterdir()]


def test_the_work_files_contain_every_tensor(source: Path, tmp_path: Path) -> None:
    conversion = begin(source, tmp_path / "model")
    for file in conversion.files:
        conversion.take(source / file)
    held, read = conversion._work.weights, layouts.recognise(Checkpoint(source))
    names = [*read.names("")]
    assert [*held.names("")] == names and json.dumps(names)
    assert all(np.array_equal(held.read(name), read.read(name)) for name in names)
    assert held.read("projector.0.weight").dtype == np.float32
    assert checkpoint.CONFIG in {file.name for file in source.iterdir()}
