"""The language file of a bundle: a GGUF for llama.cpp, in 16, 8 or 4 bits.

In: the plan of a checkpoint, a vocabulary, tensors in any order. Out: a file. The 16-bit file is created with its
header and space for every tensor; because each tensor has a fixed place, the bytes do not depend on the order of the
tensors.
This file does not know checkpoints, pictures or manifests.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

from impchat import settings
from impchat.errors import ModelError
from impchat.models.convert.layouts import Plan
from impchat.models.convert.parts import Place
from impchat.models.convert.vocabulary import Vocabulary

TYPES = {name: name for name in ("f16", "q8_0", "q4_k_m", "q4_0")} | {"q4": settings.LANGUAGE_4BIT}
_QUANTISERS = {
    "q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
}
_ALIGNMENT = 32  # of each tensor in GGUF


def begin(plan: Plan, vocabulary: Vocabulary, path: Path) -> int:
    """Write the 16-bit GGUF `path` with space for its tensors, and return the offset of that space (see `places`).
    Matrices are float16, vectors float32."""
    import gguf
    import numpy as np

    family = plan.layout.family
    writer = gguf.GGUFWriter(path, family.arch)
    writer.add_type(gguf.GGUFType.MODEL)
    # If the name contains "phi3", llama.cpp lets markers strip the white space after them.
    writer.add_name(f"Imp {family.name}" if family.name != "phi3" or vocabulary.tight else "Imp")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in family.gguf_keys(plan.language).items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
        add(f"{family.arch}.{key}", value)  # type: ignore[arg-type]
    _add_vocabulary(writer, vocabulary)
    writer.add_tokenizer_pre(family.pre_tokenizer)
    writer.add_chat_template(family.chat_template)
    for theirs, shape in _shapes(plan).items():
        dtype = np.dtype(_dtype(shape))
        writer.add_tensor_info(theirs, shape, dtype, prod(shape) * dtype.itemsize)
    try:
        writer.write_header_to_file(path=path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()
    begins = _padded(path.stat().st_size)
    os.truncate(path, begins + sum(_padded(_bytes(shape)) for shape in _shapes(plan).values()))
    return begins


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(True)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    # For a byte-level vocabulary without a bos llama.cpp would use an unrelated default token: use eos, as Phi-2 does.
    writer.add_bos_token_id(vocabulary.eos[0] if vocabulary.bos is None else vocabulary.bos)
    writer.add_eos_token_id(vocabulary.eos[0])
    if vocabulary.unknown is not None:
        writer.add_unk_token_id(vocabulary.unknown)
    writer.add_add_bos_token(vocabulary.add_bos)


def places(plan: Plan, begins: int) -> dict[str, Place]:
    """The place of each language tensor in the file whose tensors start at offset `begins`: in the order of llama.cpp's
    tensors, with those that are stacked into one next to each other."""
    found: dict[str, Place] = {}
    sizes = [_padded(_bytes(shape)) for shape in _shapes(plan).values()]
    for ours, at in zip(
        plan.layout.family.gguf_tensors(plan.language).values(), accumulate(sizes, initial=begins), strict=False
    ):
        for name in ours:
            shape = plan.shapes[name]
            found[name] = Place(at, shape, _dtype(shape))
            at += _bytes(shape)
    return found


def finish(source: Path, target: Path, kind: str) -> None:
    """Make the GGUF `target` of the type `kind`, one of the values of `TYPES`, from the 16-bit file `source`. Types
    below 16 bits are made by llama.cpp's quantiser, which keeps some tensors in more bits.

    Raises ModelError "convert.quantise" if llama.cpp refuses, EngineError "engine.not_installed"."""
    if kind == "f16":
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
        return
    from impchat.engines.local.llama import binding

    llama = binding()
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, _QUANTISERS[kind])
    code = llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    if code != 0:
        raise ModelError("convert.quantise", type=kind, number=code)


def _shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """llama.cpp's tensor name -> shape, in the order of the file."""
    stacked = {}
    for theirs, ours in plan.layout.family.gguf_tensors(plan.language).items():
        first = plan.shapes[ours[0]]
        stacked[theirs] = (sum(plan.shapes[name][0] for name in ours), *first[1:])
    return stacked


def _dtype(shape: tuple[int, ...]) -> str:
    return "float16" if len(shape) == 2 else "float32"


def _bytes(shape: tuple[int, ...]) -> int:
    return prod(shape) * (2 if len(shape) == 2 else 4)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
