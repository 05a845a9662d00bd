"""Tiny random models in the form of other projects: a llama decoder, and the mmproj of LLaVA-1.5 (`mlp`) and MobileVLM
(`ldp`); also models that ImpChat refuses: a decoder with positions in two dimensions (`qwen2vl`), one with a recurrent
state (`mamba`), vision models with non-causal attention over a picture (`gemma3`) or a number of tokens that depends on
its shape (`kimivl`).

Keys and tensor names are those of llama.cpp's own converters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

VICUNA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
WORDS = "USER : ASSIST ANT What is this colour the circle red a A chat between S E R e r s t o"


@dataclass(frozen=True)
class Tiny:
    """The description of a random pair of files."""

    hidden: int = 64  # of the decoder
    layers: int = 2
    heads: int = 2
    arch: str = "llama"
    template: str | None = VICUNA  # the chat template in the file
    extra_tokens: tuple[str, ...] = ()  # special tokens after the others
    projector: str = "mlp"
    image_size: int = 56
    patch_size: int = 14
    eyes_hidden: int = 32
    eyes_layers: int = 3  # all are kept; llama.cpp uses the last but one
    eyes_heads: int = 2
    eyes_mlp: int = 48
    projected: int | None = None  # None: `hidden`
    seed: int = 0


def vocabulary(tiny: Tiny) -> tuple[list[str], list[float], list[int]]:
    """A SentencePiece vocabulary like Llama's: three markers, 256 bytes, pieces with scores."""
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{n:02X}>" for n in range(256)]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL] + [kinds.BYTE] * 256
    letters = sorted({c for word in WORDS.split() for c in word} | {"▁"})
    pieces = letters + [p for word in WORDS.split() for p in _ladder(word)]
    for piece in dict.fromkeys(pieces):
        tokens.append(piece)
        types.append(kinds.NORMAL)
    scores = [0.0] * 259 + [-float(n) for n in range(len(tokens) - 259)]
    for token in tiny.extra_tokens:
        tokens.append(token)
        scores.append(0.0)
        types.append(kinds.CONTROL)
    return tokens, scores, [int(t) for t in types]


def _ladder(word: str) -> list[str]:
    """Every prefix of " word", so that pieces can be merged one letter at a time."""
    whole = "▁" + word
    return [whole[:n] for n in range(2, len(whole) + 1)]


def write_language(path: Path, tiny: Tiny) -> Path:
    """A llama decoder with random float16 weights. Its answers do not end by themselves: the first value of every
    token's embedding is large, and lowers only the logit of eos."""
    draw = np.random.default_rng(tiny.seed)
    tokens, scores, types = vocabulary(tiny)
    wide, mlp = tiny.hidden, 2 * tiny.hidden
    writer = gguf.GGUFWriter(path, tiny.arch)
    writer.add_name("Tiny Vicuna")
    writer.add_context_length(1024)
    writer.add_embedding_length(wide)
    writer.add_block_count(tiny.layers)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(tiny.heads)
    writer.add_head_count_kv(tiny.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(wide // tiny.heads)
    writer.add_vocab_size(len(tokens))
    if tiny.arch == "qwen2vl":
        writer.add_rope_dimension_sections([4, 6, 6, 0])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_float32(gguf.Keys.General.SAMPLING_TEMP, 0.6)
    writer.add_int32(gguf.Keys.General.SAMPLING_TOP_K, 20)
    writer.add_float32(gguf.Keys.General.SAMPLING_TOP_P, 7.0)  # an invalid value
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    if tiny.template is not None:
        writer.add_chat_template(tiny.template)

    def matrix(name: str, rows: int, columns: int, scale: float, change: Callable[[Any], None] | None = None) -> None:
        values = scale * draw.standard_normal((rows, columns))
        if change:
            change(values)
        writer.add_tensor(name, values.astype(np.float16))

    def lift(values: Any) -> None:
        values[:, 0] = 8.0

    def go_on(values: Any) -> None:
        values[:, 0] = 0.0
        values[2, 0] = -20.0

    def norm(name: str) -> None:
        writer.add_tensor(name, (1 + 0.1 * draw.standard_normal(wide)).astype(np.float32))

    matrix("token_embd.weight", len(tokens), wide, 1.0, lift)
    for i in range(tiny.layers):
        norm(f"blk.{i}.attn_norm.weight")
        if tiny.arch == "mamba":
            continue
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{part}.weight", wide, wide, 2 * wide**-0.5)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", mlp, wide, wide**-0.5)
        matrix(f"blk.{i}.ffn_up.weight", mlp, wide, wide**-0.5)
        matrix(f"blk.{i}.ffn_down.weight", wide, mlp, mlp**-0.5)
    if tiny.arch == "mamba":
        _recurrent(writer, matrix, wide, tiny.layers)
    norm("output_norm.weight")
    matrix("output.weight", len(tokens), wide, 6 * wide**-0.5, go_on)
    return _close(writer, path)


def _recurrent(writer: gguf.GGUFWriter, matrix: Any, wide: int, layers: int) -> None:
    """Mamba's tensors in place of attention."""
    inner, state, rank, kernel = 2 * wide, 8, 4, 4
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    for i in range(layers):
        matrix(f"blk.{i}.ssm_in.weight", 2 * inner, wide, 0.1)
        matrix(f"blk.{i}.ssm_x.weight", rank + 2 * state, inner, 0.1)
        matrix(f"blk.{i}.ssm_dt.weight", inner, rank, 0.1)
        matrix(f"blk.{i}.ssm_out.weight", wide, inner, 0.1)
        for name, shape in (("ssm_conv1d.weight", (inner, kernel)), ("ssm_a", (inner, state))):
            writer.add_tensor(f"blk.{i}.{name}", np.full(shape, -0.5, np.float32))
        for name in ("ssm_conv1d.bias", "ssm_dt.bias", "ssm_d"):
            writer.add_tensor(f"blk.{i}.{name}", np.zeros(inner, np.float32))


def write_mmproj(path: Path, tiny: Tiny, **keys: Any) -> Path:
    """CLIP's vision encoder with a class token and a norm before the first layer, and the projector; `keys` are
    added as they are, replacing others."""
    draw = np.random.default_rng(tiny.seed + 1)
    wide, mlp = tiny.eyes_hidden, tiny.eyes_mlp
    writer = gguf.GGUFWriter(path, "clip")
    values: dict[str, Any] = {
        "clip.has_text_encoder": False,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "clip.projector_type": tiny.projector,
        "clip.use_gelu": False,
        "clip.vision.image_size": tiny.image_size,
        "clip.vision.patch_size": tiny.patch_size,
        "clip.vision.embedding_length": wide,
        "clip.vision.feed_forward_length": mlp,
        "clip.vision.projection_dim": tiny.hidden,
        "clip.vision.block_count": tiny.eyes_layers,
        "clip.vision.attention.head_count": tiny.eyes_heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711],
    } | keys
    for key, value in values.items():
        kind = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
        getattr(writer, f"add_{kind}")(key, value)

    def add(name: str, *shape: int, scale: float = 0.05, around: float = 0.0, half: bool = False) -> None:
        values = around + scale * draw.standard_normal(shape)
        writer.add_tensor(name, values.astype(np.float16 if half else np.float32))

    def linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns, scale=columns**-0.5, half=True)
        add(f"{name}.bias", rows)

    def norm(name: str, size: int = wide) -> None:
        add(f"{name}.weight", size, around=1.0)
        add(f"{name}.bias", size)

    patches = (tiny.image_size // tiny.patch_size) ** 2
    clip = tiny.projector in ("mlp", "ldp")
    if clip:
        add("v.class_embd", wide)
        norm("v.pre_ln")
    add("v.patch_embd.weight", wide, 3, tiny.patch_size, tiny.patch_size, half=True)
    add("v.position_embd.weight", patches + clip, wide, scale=0.3)
    for i in range(tiny.eyes_layers):
        norm(f"v.blk.{i}.ln1")
        norm(f"v.blk.{i}.ln2")
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            linear(f"v.blk.{i}.{part}", wide, wide)
        linear(f"v.blk.{i}.ffn_up", mlp, wide)
        linear(f"v.blk.{i}.ffn_down", wide, mlp)
    out = tiny.hidden if tiny.projected is None else tiny.projected
    if tiny.projector == "mlp":
        linear("mm.0", out, wide)
        linear("mm.2", out, out)
    elif tiny.projector == "ldp":
        _ldp(linear, norm, add, out, wide)
    elif tiny.projector == "gemma3":
        add("mm.input_projection.weight", wide, out)
        add("mm.soft_emb_norm.weight", wide)
    elif tiny.projector == "kimivl":
        norm("mm.input_norm")
        linear("mm.1", out, 4 * wide)
        linear("mm.2", out, out)
    return _close(writer, path)


def _ldp(linear: Any, norm: Any, add: Any, out: int, wide: int) -> None:
    """MobileVLM's projector: two linear layers, then two blocks of convolutions; the second halves the grid."""
    linear("mm.model.mlp.1", out, wide)
    linear("mm.model.mlp.3", out, out)
    for block in (1, 2):
        name = f"mm.model.mb_block.{block}.block"
        add(f"{name}.0.0.weight", out, 1, 3, 3, scale=0.3, half=True)
        norm(f"{name}.0.1", out)
        linear(f"{name}.1.fc1", out // 4, out)
        linear(f"{name}.1.fc2", out, out // 4)
        add(f"{name}.2.0.weight", out, out, scale=out**-0.5, half=True)
        norm(f"{name}.2.1", out)


def _close(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
