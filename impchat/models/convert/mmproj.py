"""`impchat convert --format mmproj`: the vision tower and projector of an Imp as a GGUF for llama.cpp's own programs.

In: a checkpoint. Out: an mmproj file, with which llama.cpp's programs run the language.gguf of a bundle made from the
same checkpoint. It differs from our vision file in the projector's GELU, of which llama.cpp has only the tanh form, and
in that llama.cpp pads every picture to a square with its own colour.
This file does not know language models or manifests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from impchat import bundle
from impchat.errors import ModelError
from impchat.models.convert.layouts import VisionLayout, eye_shapes

if TYPE_CHECKING:
    from impchat.models.convert.vision import Read

# our names of SigLIP's tensors -> llama.cpp's
_STEM = {
    "eyes.embeddings.patch_embedding": "v.patch_embd",
    "eyes.embeddings.position_embedding": "v.position_embd",
    "projector.0": "mm.0",
    "projector.2": "mm.2",
}
_LAYER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
# An old converter swapped these two names, so llama.cpp takes a ffn_down as wide as the model for one of its files.
_SWAPPED = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}


def export(source: Path, target: Path, *, begun: Callable[[], object] = lambda: None) -> None:
    """Write the mmproj file `target` of the checkpoint in the folder `source`; it appears when it is complete. `begun`
    is called after all checks that are possible before the work.

    Raises ModelError as `layouts.recognise`, "model.target_occupied" if `target` exists, "model.target_unwritable"."""
    from impchat.models.convert import layouts
    from impchat.models.convert.checkpoint import Checkpoint

    weights = layouts.recognise(Checkpoint(source))
    if target.exists():
        raise ModelError("model.target_occupied", path=str(target))
    begun()
    part = target.with_name(f".{target.name}.part")
    with bundle.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(weights.eyes, weights.read, part, name=source.absolute().name)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)


def write(eyes: VisionLayout, read: Read, path: Path, *, name: str) -> None:
    """Write the GGUF `path` of the tower `eyes`, whose tensors `read` returns: matrices and the patch kernel in
    float16, the rest in float32. Tensors are read and written one at a time."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.MMPROJ])
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type("mlp")
    writer.add_vision_use_gelu(True)
    writer.add_vision_projection_dim(eyes.projected)
    writer.add_vision_image_size(eyes.image_size)
    writer.add_vision_patch_size(eyes.patch_size)
    writer.add_vision_embedding_length(eyes.hidden)
    writer.add_vision_feed_forward_length(eyes.mlp)
    writer.add_vision_block_count(eyes.layers)
    writer.add_vision_head_count(eyes.heads)
    writer.add_vision_attention_layernorm_eps(eyes.norm_eps)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    # By default llama.cpp omits the last layer: declare that all layers in this file are used.
    writer.add_array("clip.vision.feature_layer", [eyes.layers])
    shapes = eye_shapes(eyes)
    for theirs, ours in tensors(eyes):
        dtype = np.dtype(_dtype(ours, shapes[ours]))
        writer.add_tensor_info(theirs, shapes[ours], dtype, prod(shapes[ours]) * dtype.itemsize)
    try:
        writer.write_header_to_file(path=path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, ours in tensors(eyes):
            writer.write_tensor_data(np.ascontiguousarray(read(ours), dtype=_dtype(ours, shapes[ours])))
    finally:
        writer.close()


def tensors(eyes: VisionLayout) -> Iterator[tuple[str, str]]:
    """(llama.cpp's name, our name) of every tensor."""
    for ours in eye_shapes(eyes):
        module, kind = ours.rsplit(".", 1)
        if module in _STEM:
            yield f"{_STEM[module]}.{kind}", ours
            continue
        _, _, _, number, inner = module.split(".", 4)
        theirs = _LAYER[inner]
        if eyes.mlp == eyes.hidden:
            theirs = _SWAPPED.get(theirs, theirs)
        yield f"v.blk.{number}.{theirs}.{kind}", ours


def _dtype(name: str, shape: tuple[int, ...]) -> str:
    return "float16" if len(shape) > 1 and "position_embedding" not in name else "float32"
