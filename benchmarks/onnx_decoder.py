"""Whether onnxruntime could generate faster than llama.cpp: `python -m benchmarks.onnx_decoder BUNDLE [--threads N]`.
Requires the extra `convert`.

In: a bundle whose language model has Phi-2's sizes. Out: the time of a token in llama.cpp, the time of the decoder's
matrix products alone in onnxruntime (MatMulNBits: 4 bits, blocks of 32, accuracy_level 4; threads do not spin), and
the ratio; each is the median of alternating rounds, with the smallest and the largest. A whole decoder in onnxruntime
takes longer than its matrix products, so the ratio is the most that it could gain.
`--cpu` measures CPU seconds of one thread instead, for a machine with other work.
This file does not know attention, and its weights are random.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impchat import bundle
from impchat.engines.local.backend import Row
from impchat.engines.local.llama import Context, Model, default_threads

if TYPE_CHECKING:
    import numpy

LAYERS = 32
LAYER = ((2560, 2560),) * 4 + ((2560, 10240), (10240, 2560))  # queries, keys, values, output, MLP: (inputs, outputs)
HEAD = (2560, 51200)
LAYERS_BUILT = 4  # run several times: 157 MB of weights do not stay in a processor's cache
BLOCK = 32


def save(shapes: Sequence[tuple[int, int]], path: Path) -> None:
    """Save a model that multiplies a row by a random matrix of each of `shapes`."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    draw = np.random.default_rng(0)
    nodes, weights, outputs = [], [], []
    for n, (inputs, to) in enumerate(shapes):
        blocks = inputs // BLOCK
        packed = draw.integers(0, 256, (to, blocks, BLOCK // 2), dtype=np.uint8)
        scales = draw.random(to * blocks, dtype=np.float32) * 0.01
        weights.append(helper.make_tensor(f"w{n}", TensorProto.UINT8, packed.shape, packed.tobytes(), raw=True))
        weights.append(helper.make_tensor(f"s{n}", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True))
        sizes: dict[str, Any] = {"K": inputs, "N": to, "bits": 4, "block_size": BLOCK, "accuracy_level": 4}
        names = [f"x{inputs}", f"w{n}", f"s{n}"]
        nodes.append(helper.make_node("MatMulNBits", names, [f"y{n}"], domain="com.microsoft", **sizes))
        outputs.append(helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, [1, to]))
    rows = [helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, [1, k]) for k in {k for k, _ in shapes}]
    graph = helper.make_graph(nodes, "products", rows, outputs, weights)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=8), path)


def opened(shapes: Sequence[tuple[int, int]], threads: int) -> Callable[[], Any]:
    """A function that computes the products of `shapes` once, in onnxruntime."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "products.onnx"
        save(shapes, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    draw = np.random.default_rng(1)
    rows: dict[str, numpy.ndarray] = {
        row.name: draw.standard_normal(row.shape).astype(np.float32) for row in session.get_inputs()
    }
    return lambda: session.run(None, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="onnxruntime's matrix products against a token of llama.cpp.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cpu", action="store_true", help="measure CPU seconds, with one thread")
    args = parser.parse_args()
    threads = 1 if args.cpu else args.threads
    now = time.thread_time if args.cpu else time.perf_counter
    model = Model(bundle.load(args.bundle).language)
    context = Context(model, 1, 512, 512, threads)
    layers, head = opened(LAYER * LAYERS_BUILT, threads), opened([HEAD], threads)

    def ms(work: Callable[[], Any]) -> float:
        begun = now()
        work()
        return 1000 * (now() - begun)

    tokens, products = [], []
    for n in range(args.rounds):
        rows = [Row(0, n, 200 + n, logits=True)]
        tokens.append(ms(lambda rows=rows: context.decode(rows)))  # type: ignore[misc]
        products.append(LAYERS / LAYERS_BUILT * ms(layers) + ms(head))
    ratios = [token / product for token, product in zip(tokens, products, strict=True)]
    for name, values, digits in (
        ("a token of llama.cpp, ms", tokens, 1),
        ("onnxruntime's products, ms", products, 1),
        ("the most that onnxruntime could gain, times", ratios, 2),
    ):
        figures = f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
        print(f"{name}: {figures}")


if __name__ == "__main__":
    main()
