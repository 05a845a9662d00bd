"""The language file of a bundle: a GGUF for llama.cpp, in 16, 8 or 4 bits.

In: weights and a vocabulary. Out: a file. Tensors are read, stacked and written one at a time.
This file does not know checkpoints, pictures or manifests.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from impchat import settings
from impchat.errors import ModelError
from impchat.models.convert.layouts import Weights
from impchat.models.convert.vocabulary import Vocabulary

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Array

TYPES = {"f16": "f16", "q8_0": "q8_0", "q4": settings.LANGUAGE_4BIT}
_QUANTISERS = {
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
}


def write(weights: Weights, vocabulary: Vocabulary, path: Path, *, name: str, kind: str) -> None:
    """Write the GGUF `path`, whose values are of the type `kind`, one of the values of `TYPES`.

    16 bits hold every matrix in float16 and every vector in float32. The rest is made of that by llama.cpp's own
    quantiser, which keeps what it thinks needs more bits in more.
    Raises ModelError "convert.quantise" where llama.cpp refuses, EngineError "engine.not_installed"."""
    if kind == "f16":
        _write_f16(weights, vocabulary, path, name=name)
        return
    whole = path.with_suffix(".f16")
    _write_f16(weights, vocabulary, whole, name=name)
    try:
        _quantise(whole, path, kind)
    finally:
        whole.unlink(missing_ok=True)


def _write_f16(weights: Weights, vocabulary: Vocabulary, path: Path, *, name: str) -> None:
    import gguf
    import numpy as np

    family = weights.layout.family
    tensors = family.gguf_tensors(weights.language)
    writer = gguf.GGUFWriter(path, family.arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in family.gguf_keys(weights.language).items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
        add(f"{family.arch}.{key}", value)  # type: ignore[arg-type]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(family.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    # A byte-level vocabulary without a bos gets llama.cpp's default, some unrelated token: say eos, as Phi-2 does.
    writer.add_bos_token_id(vocabulary.eos)
    writer.add_eos_token_id(vocabulary.eos)
    writer.add_add_bos_token(False)
    shapes = family.shapes(weights.language)
    for theirs, ours in tensors.items():
        first = shapes[ours[0]]
        shape = (sum(shapes[name][0] for name in ours), *first[1:])
        dtype = np.dtype(np.float16 if len(shape) == 2 else np.float32)
        writer.add_tensor_info(theirs, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    try:
        writer.write_header_to_file(path=path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for array in _stacked(weights, tensors):
            writer.write_tensor_data(array)
    finally:
        writer.close()


def _stacked(weights: Weights, tensors: dict[str, tuple[str, ...]]) -> Iterator[Array]:
    import numpy as np

    for ours in tensors.values():
        arrays = [weights.read(name) for name in ours]
        stacked = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        yield np.ascontiguousarray(stacked, dtype=np.float16 if stacked.ndim == 2 else np.float32)


def _quantise(source: Path, target: Path, kind: str) -> None:
    from impchat.engines.llama import binding

    llama = binding()
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, _QUANTISERS[kind])
    code = llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if code != 0:
        raise ModelError("convert.quantise", type=kind, number=code)
