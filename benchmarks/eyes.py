"""Which 8-bit scheme to use for the vision tower: `python -m benchmarks.eyes` compares them on random towers.

In: the sizes of a tower. Out: a table: bytes, CPU time per picture, and how close each patch's embedding is to float32
(cosine; the mean and the worst patch), on plain random weights and with two outlier channels in every LayerNorm, as in
trained towers. Requires the extra `convert`.
This file does not know checkpoints or bundles.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from impchat.models.convert import vision
from impchat.models.convert.layouts import VisionLayout, eye_shapes
from impchat.models.convert.vision import EightBits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Weights = dict[str, Floats]

DEMO = VisionLayout(hidden=160, layers=4, heads=5, mlp=640, image_size=196, patch_size=14, norm_eps=1e-6, projected=256)
# SigLIP SO400M as in Imp-3B@196, with 4 layers instead of 26
SO400M = VisionLayout(
    hidden=1152, layers=4, heads=16, mlp=4304, image_size=196, patch_size=14, norm_eps=1e-6, projected=2560
)
OUTLIERS = (30.0, 100.0)  # relative to the other channels
_RUNS = 7


def random_weights(eyes: VisionLayout, seed: int = 0) -> Weights:
    """A tower whose layers all have a similar effect on the output."""
    import numpy as np

    draw = np.random.default_rng(seed)
    weights = {}
    for name, shape in eye_shapes(eyes).items():
        values = draw.standard_normal(shape)
        if name.endswith("bias"):
            values *= 0.1
        elif "layer_norm" in name:
            values = 1 + 0.1 * values
        elif "position" in name:
            values *= 0.3
        else:
            values *= np.prod(shape[1:]) ** -0.5
        weights[name] = values.astype(np.float32)
    return weights


def plant(eyes: VisionLayout, weights: Weights, seed: int = 0) -> Weights:
    """The same tower with two channels after every LayerNorm `OUTLIERS` times as large, and the columns that read them
    scaled down accordingly: it computes the same, and is as hard to quantise to 8 bits as a trained one."""
    import numpy as np

    channels = np.random.default_rng(seed).choice(eyes.hidden, len(OUTLIERS), replace=False)
    gain = np.array(OUTLIERS, np.float32)
    readers = {"layer_norm1": [f"self_attn.{x}_proj" for x in "qkv"], "layer_norm2": ["mlp.fc1"]}
    planted = {name: values.copy() for name, values in weights.items()}
    for layer in (f"eyes.encoder.layers.{i}." for i in range(eyes.layers)):
        for norm, linears in readers.items():
            for kind in ("weight", "bias"):
                planted[f"{layer}{norm}.{kind}"][channels] *= gain
            for linear in linears:
                planted[f"{layer}{linear}.weight"][:, channels] /= gain
    return planted


def held_in(scheme: EightBits | None) -> Callable[[VisionLayout, Weights, Path], None]:
    """A function that writes a tower in `scheme` to a file."""
    return lambda eyes, weights, path: vision.write(eyes, weights.__getitem__, path, scheme=scheme)


def dynamic(*, per_channel: bool) -> Callable[[VisionLayout, Weights, Path], None]:
    """A function that writes a tower in onnxruntime's dynamic int8: one scale for all inputs of a matrix."""

    def write(eyes: VisionLayout, weights: Weights, path: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = path.with_suffix(".fp32")
        held_in(None)(eyes, weights, whole)
        logging.getLogger().setLevel(logging.ERROR)  # otherwise it recommends preprocessing
        quantize_dynamic(
            whole,
            path,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"DefaultTensorType": 1},  # float32 if it cannot infer a node's type
        )
        whole.unlink()

    return write


SCHEMES = {
    "float32": held_in(None),
    "dynamic int8": dynamic(per_channel=False),
    "dynamic int8 per channel": dynamic(per_channel=True),
    **{
        f"MatMulNBits block {block}, accuracy_level {level}": held_in(EightBits(block, level))
        for level in (4, 1)
        for block in (16, 32, 64, 128)
    },
}


def embeddings(path: Path, seed: int = 0) -> tuple[Floats, float]:
    """The embeddings of a random picture from the tower in the file `path`, and the CPU seconds that took."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # so that CPU time does not depend on other load
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[2]
    picture = np.random.default_rng(seed).uniform(-1, 1, (1, 3, size, size)).astype(np.float32)
    seconds = []
    for _ in range(_RUNS):
        begun = time.process_time()
        output: Floats = session.run(None, {"pixel_values": picture})[0]
        seconds.append(time.process_time() - begun)
    return output[0], min(seconds)


def cosines(ours: Floats, theirs: Floats) -> Floats:
    """The cosine of each patch."""
    import numpy as np

    result: Floats = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.eyes", description=__doc__)
    parser.add_argument("--layers", type=int, default=SO400M.layers, help="of the larger tower; the real one has 26")
    layers = parser.parse_args(argv).layers
    for title, eyes in (("The demo's", DEMO), (f"SO400M's sizes, {layers} layers", replace(SO400M, layers=layers))):
        print(
            f"\n{title}\n\n| scheme | MB | ms | plain: mean | worst | outliers: mean | worst |",
            "|---" * 7 + "|",
            sep="\n",
        )
        plain = random_weights(eyes)
        exact: list[Floats] = []
        for name, write in SCHEMES.items():
            cells = []
            for i, weights in enumerate((plain, plant(eyes, plain))):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "eyes.onnx"
                    write(eyes, weights, path)
                    found, seconds = embeddings(path)
                    size = path.stat().st_size
                exact += [found] if len(exact) <= i else []
                near = cosines(found, exact[i])
                cells.append(f"{near.mean():.5f} | {near.min():.5f}")
            print(f"| {name} | {size / 1e6:.1f} | {seconds * 1e3:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
