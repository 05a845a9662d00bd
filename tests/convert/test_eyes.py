"""The 8-bit vision encoder is close to float32, even if a few channels are far larger than the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import eyes as bench
from impchat.models.convert import vision
from impchat.models.convert.layouts import VisionLayout

WIDE = VisionLayout(
    hidden=384, layers=3, heads=6, mlp=1000, image_size=112, patch_size=14, norm_eps=1e-6, projected=256
)


def nearness(
    tmp_path: Path, weights: bench.Weights, write: Callable[[VisionLayout, bench.Weights, Path], None]
) -> np.ndarray:
    """Cosine of each patch between float32 and the file that `write` makes."""
    found = []
    for name, how in (("exact", bench.held_in(None)), ("found", write)):
        how(WIDE, weights, tmp_path / name)
        found.append(bench.embeddings(tmp_path / name)[0])
    return bench.cosines(*found)


@pytest.fixture(scope="module")
def plain() -> bench.Weights:
    return bench.random_weights(WIDE)


def test_planting_outliers_changes_nothing_in_float32(tmp_path: Path, plain: bench.Weights) -> None:
    planted = bench.plant(WIDE, plain)
    changed = [name for name in plain if not np.array_equal(plain[name], planted[name])]
    assert len(changed) == WIDE.layers * 8
    seen = []
    for weights in (plain, planted):
        bench.held_in(None)(WIDE, weights, tmp_path / "eyes.onnx")
        seen.append(bench.embeddings(tmp_path / "eyes.onnx")[0])
    assert np.abs(seen[0] - seen[1]).max() < 1e-4


def test_8_bits_are_near_float32_on_plain_weights(tmp_path: Path, plain: bench.Weights) -> None:
    assert nearness(tmp_path, plain, bench.held_in(vision.TYPES["int8"])).min() > 0.9997


def test_8_bits_are_near_float32_with_planted_outlier_channels(tmp_path: Path, plain: bench.Weights) -> None:
    planted = bench.plant(WIDE, plain)
    near = nearness(tmp_path, planted, bench.held_in(vision.TYPES["int8"]))
    assert near.mean() > 0.995 and near.min() > 0.98
    # the effect of such channels on a scheme with one scale for all inputs
    assert nearness(tmp_path, planted, bench.dynamic(per_channel=False)).mean() < 0.95
