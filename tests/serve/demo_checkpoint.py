"""Converts the bundled demo model back to a checkpoint, apart from the loss of 8-bit quantisation.

Other programs' formats are made of it, so that servers from other projects give answers that can be checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx
from gguf import GGUFReader
from onnx import numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from impchat.bundle import Bundle
from impchat.models.convert import checkpoint, phi2
from tests.convert.checkpoints import Tiny, make_config

_TOWER = "model.vision_tower.vision_tower.vision_model."
_NAMES = {  # name in vision.onnx -> name in a checkpoint
    "patches.": f"{_TOWER}embeddings.patch_embedding.",
    "positions": f"{_TOWER}embeddings.position_embedding.weight",
    "eyes.encoder.": f"{_TOWER}encoder.",
    "projector.": "model.mm_projector.",
}


def write(path: Path, demo: Bundle) -> Path:
    """Write the checkpoint of the demo model into the folder `path` and return it."""
    reader = GGUFReader(demo.language)
    tokenizer, eyes = _tokenizer(reader), _eyes(demo.path / "vision.onnx")
    width, patches = (
        eyes[f"{_TOWER}embeddings.{name}"] for name in ("patch_embedding.bias", "position_embedding.weight")
    )
    tiny = Tiny(
        heads=_value(reader, "phi2.attention.head_count"),
        layers=_value(reader, "phi2.block_count"),
        eyes_hidden=len(width),
        eyes_heads=len(width) // 32,
        eyes_layers=sum(name.endswith("layer_norm1.bias") for name in eyes),
        eyes_mlp=len(eyes[f"{_TOWER}encoder.layers.0.mlp.fc1.bias"]),
        image_size=round(len(patches) ** 0.5) * 14,
        context=_value(reader, "phi2.context_length"),
    )
    sizes = {"intermediate_size": "feed_forward_length", "vocab_size": "vocab_size"}
    config = make_config(tiny, tokenizer) | {ours: _value(reader, f"phi2.{theirs}") for ours, theirs in sizes.items()}
    checkpoint.write(path, _words(reader, config) | eyes, config, tokenizer)
    return path


def _value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


def _words(reader: GGUFReader, config: dict[str, Any]) -> dict[str, np.ndarray]:
    held = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
    tensors: dict[str, np.ndarray] = {}
    for theirs, ours in phi2.gguf_tensors(phi2.describe(checkpoint.Config(config, Path()))).items():
        tensors |= zip(ours, np.split(held[theirs], len(ours)), strict=True)
    return tensors


def _eyes(path: Path) -> dict[str, np.ndarray]:
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    tensors = {}
    for name, value in held.items():
        scale = held.get(name.replace(".weight", ".scale"))
        if name.endswith(".weight") and scale is not None:  # unsigned bytes around 128, in blocks with one scale each
            value = ((value.astype(np.float32) - 128) * scale.reshape(*value.shape[:2], 1)).reshape(len(value), -1)
        start = next((start for start in _NAMES if name.startswith(start)), None)
        if start and not name.endswith(".scale"):
            tensors[_NAMES[start] + name.removeprefix(start)] = value.astype(np.float32)
    return tensors


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    tokens, kinds = (_value(reader, f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == gguf.TokenType.CONTROL]
    vocab = {token: number for number, token in enumerate(tokens) if token not in special}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
