"""The vision file of a bundle: an ONNX graph of the vision tower and the projector.

In: sizes and weights. Out: a file with the input pixel_values (n, 3, size, size) float32 and the output embeddings (n,
tokens, hidden) float32; large weights are in a second file next to it (ONNX's external data). The tower is SigLIP's,
cut after the layer whose output is used, without pooling head or final norm. Its matrices are stored in float32
("fp32"), float16 ("fp16") or 8 bits ("int8"); sums are always float32.
This file does not know checkpoints, language models or manifests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from impchat.models.convert.layouts import VisionLayout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Read = Callable[[str], NDArray[np.float32 | np.float16]]  # name of a tensor of `layouts.eye_shapes` -> values


@dataclass(frozen=True, slots=True)
class EightBits:
    """How matrices are stored in 8 bits (onnxruntime's MatMulNBits)."""

    block: int  # number of inputs of a row that share a scale
    accuracy_level: int  # 4: inputs are quantised to 8 bits too, block by block; 1: they stay float32


Scheme = EightBits | Literal["float16"] | None  # None: float32

# Trained towers have a few channels with values 100 times larger than the others. With scales for small blocks they do
# not spoil the precision of other channels; `python -m benchmarks.eyes` compares the schemes.
TYPES: dict[str, Scheme] = {"fp32": None, "fp16": "float16", "int8": EightBits(block=16, accuracy_level=4)}
# Weights larger than this are in a file of their own, which onnxruntime maps: it loads at once, and the system can
# evict its pages. Weights inside the ONNX file are read into memory, and stay there twice.
APART_BYTES = 64 * 1024 * 1024
DATA = ".data"  # suffix added to the ONNX file's name
OPSET = 17  # supported by onnxruntime on phones
IR = 10
MICROSOFT = "com.microsoft"


def write(eyes: VisionLayout, read: Read, path: Path, *, scheme: Scheme) -> None:
    """Write the ONNX file `path` of the tower `eyes`, whose tensors `read` returns, and `path` + DATA next to it if the
    weights are large."""
    import onnx

    graph = _Graph(read, scheme)
    _build(graph, eyes)
    data = path.with_name(path.name + DATA)
    data.unlink(missing_ok=True)  # onnx would append to an existing file
    apart = sum(len(constant.raw_data) for constant in graph.constants) > APART_BYTES
    onnx.save(graph.model(eyes), str(path), save_as_external_data=apart, location=data.name)
    if apart:
        data.chmod(path.stat().st_mode)  # onnx makes it readable for its owner only


class _Graph:
    """Collects nodes and constants. Methods return the name of a node's output."""

    def __init__(self, read: Read, scheme: Scheme) -> None:
        self._read = read
        self.scheme = scheme
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def read(self, name: str) -> Floats:
        import numpy as np

        return self._read(name).astype(np.float32)

    def constant(self, name: str, values: Any) -> str:
        import numpy as np
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, name: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def norm(self, name: str, values: str, eps: float) -> str:
        scale = self.constant(f"{name}.weight", self.read(f"{name}.weight"))
        shift = self.constant(f"{name}.bias", self.read(f"{name}.bias"))
        return self.node("LayerNormalization", name, values, scale, shift, axis=-1, epsilon=eps)

    def linear(self, name: str, values: str) -> str:
        matrix = self.read(f"{name}.weight")
        bias = self.constant(f"{name}.bias", self.read(f"{name}.bias"))
        if not isinstance(self.scheme, EightBits):
            weight = self.constant(f"{name}.weight", matrix.T.astype(self.scheme or "float32"))
            if self.scheme:  # onnxruntime does this once, when it loads the file
                weight = self.node("Cast", f"{name}.wide", weight, to=1)
            product = self.node("MatMul", f"{name}.product", values, weight)
            return self.node("Add", name, product, bias)
        rows, columns = matrix.shape
        packed, scales = pack(matrix, self.scheme.block)
        weight = self.constant(f"{name}.weight", packed)
        scale = self.constant(f"{name}.scale", scales)
        return self.node(
            "MatMulNBits",
            name,
            *(values, weight, scale, "", "", bias),
            domain=MICROSOFT,
            K=columns,
            N=rows,
            bits=8,
            block_size=self.scheme.block,
            accuracy_level=self.scheme.accuracy_level,
        )

    def model(self, eyes: VisionLayout) -> Any:
        from onnx import TensorProto, checker, helper

        size = eyes.image_size
        pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 3, size, size])
        embeddings = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", eyes.tokens, eyes.projected])
        graph = helper.make_graph(self.nodes, "eyes", [pixels], [embeddings], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="impchat")
        checker.check_model(model)
        return model


def _build(graph: _Graph, eyes: VisionLayout) -> None:
    import numpy as np

    stem = "eyes.embeddings."
    patches = graph.node(
        "Conv",
        "patches",
        "pixel_values",
        graph.constant("patches.weight", graph.read(f"{stem}patch_embedding.weight")),
        graph.constant("patches.bias", graph.read(f"{stem}patch_embedding.bias")),
        kernel_shape=[eyes.patch_size] * 2,
        strides=[eyes.patch_size] * 2,
    )
    # (n, hidden, rows, columns) -> (n, tokens, hidden)
    flat = graph.node("Reshape", "flat", patches, graph.constant("flat.shape", np.array([0, 0, -1], np.int64)))
    tokens = graph.node("Transpose", "tokens", flat, perm=[0, 2, 1])
    positions = graph.constant("positions", graph.read(f"{stem}position_embedding.weight"))
    values = graph.node("Add", "placed", tokens, positions)
    for i in range(eyes.layers):
        values = _layer(graph, eyes, f"eyes.encoder.layers.{i}", values)
    hidden = _gelu(graph, "projector.1", graph.linear("projector.0", values))
    graph.node("Identity", "embeddings", graph.linear("projector.2", hidden))


def _layer(graph: _Graph, eyes: VisionLayout, name: str, values: str) -> str:
    normed = graph.norm(f"{name}.layer_norm1", values, eyes.norm_eps)
    q, k, v = (graph.linear(f"{name}.self_attn.{x}_proj", normed) for x in "qkv")
    attended = graph.node("MultiHeadAttention", f"{name}.attended", q, k, v, domain=MICROSOFT, num_heads=eyes.heads)
    values = graph.node("Add", f"{name}.seen", values, graph.linear(f"{name}.self_attn.out_proj", attended))
    normed = graph.norm(f"{name}.layer_norm2", values, eyes.norm_eps)
    wide = _gelu_tanh(graph, f"{name}.mlp.gelu", graph.linear(f"{name}.mlp.fc1", normed))
    return graph.node("Add", name, values, graph.linear(f"{name}.mlp.fc2", wide))


def _gelu(graph: _Graph, name: str, values: str) -> str:
    """The exact GELU, as in torch.nn.GELU."""
    return graph.node("Gelu", name, values, domain=MICROSOFT)


def _gelu_tanh(graph: _Graph, name: str, values: str) -> str:
    """The tanh form of GELU, as in SigLIP."""
    return graph.node("FastGelu", name, values, domain=MICROSOFT)


def pack(matrix: Floats, block: int) -> tuple[Any, Floats]:
    """8-bit values (rows, blocks, block) around a zero of 128 and their scales (rows, blocks), for MatMulNBits."""
    import numpy as np

    rows, columns = matrix.shape
    blocks = -(-columns // block)
    cut = np.zeros((rows, blocks * block), np.float32)
    cut[:, :columns] = matrix
    cut = cut.reshape(rows, blocks, block)
    scales = np.abs(cut).max(axis=2, keepdims=True) / np.float32(127)
    steps = np.divide(cut, scales, out=np.zeros_like(cut), where=scales > 0)
    return (np.rint(steps) + 128).astype(np.uint8), scales[:, :, 0]
