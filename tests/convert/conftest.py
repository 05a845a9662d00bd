"""Small random Imp checkpoints with the family's exact names, in the newer and the older Phi layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from impchat.models.convert import checkpoint

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: \nWhat colour is the circle? ASSISTANT: The circle is red.",
    "图里有几个圆？ 图里有三个红色的圆和一个蓝色的正方形。",
    "def area(side):\n    return side * side\n\n\tprint(area(12))",
    "it's I'm we've they'd she'll don't 3.14159 2024 100% [0.12, 0.34, 0.56, 0.78]",
] * 4


@dataclass(frozen=True)
class Tiny:
    """What a random checkpoint is like; the defaults are small and quick."""

    layout: str = "newer"
    head_size: int = 32
    heads: int = 4
    layers: int = 3
    eyes_hidden: int = 96
    eyes_heads: int = 3
    eyes_layers: int = 3  # kept
    eyes_mlp: int = 160
    image_size: int = 56
    aspect: str = "square"
    seed: int = 0

    @property
    def hidden(self) -> int:
        return self.head_size * self.heads


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE as Phi-2's: GPT-2's split, all 256 bytes, runs of spaces as added tokens, `</s>`, `<image>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (8, 4, 2)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("</s>", "<image>")])
    return tokenizer


def make_config(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json of the newer or the older layout."""
    shared = {
        "architectures": ["ImpForCausalLM"],
        "model_type": "imp",
        "vocab_size": -(-tokenizer.get_vocab_size() // 64) * 64,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.token_to_id("</s>"),
        "image_token": "<image>",
        "image_token_index": tokenizer.token_to_id("<image>"),
        "image_aspect_ratio": tiny.aspect,
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": tiny.eyes_hidden,
        "mm_vision_select_layer": -2,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": tiny.eyes_hidden,
            "intermediate_size": tiny.eyes_mlp,
            "num_attention_heads": tiny.eyes_heads,
            "num_hidden_layers": tiny.eyes_layers + 1,
            "image_size": tiny.image_size,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu_pytorch_tanh",
        },
    }
    if tiny.layout == "older":
        return shared | {
            "n_embd": tiny.hidden,
            "n_layer": tiny.layers,
            "n_head": tiny.heads,
            "n_inner": None,
            "n_positions": 512,
            "rotary_dim": tiny.head_size // 2,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
        }
    return shared | {
        "hidden_size": tiny.hidden,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": tiny.heads,
        "intermediate_size": 4 * tiny.hidden,
        "max_position_embeddings": 512,
        "partial_rotary_factor": 0.5,
        "rope_theta": 10000.0,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-5,
    }


def make_tensors(tiny: Tiny, vocab: int) -> dict[str, np.ndarray]:
    """Random weights in the newer layout. They are large enough for logits that tell tokens apart, and are all
    float16 values, so that a conversion to 16 bits loses nothing."""
    draw = np.random.default_rng(tiny.seed)
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, scale: float = 0.02, around: float = 0.0) -> None:
        tensors[name] = (around + scale * draw.standard_normal(shape)).astype(np.float16).astype(np.float32)

    def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> None:
        add(f"{name}.weight", rows, columns, scale=gain * columns**-0.5)
        add(f"{name}.bias", rows, scale=0.1)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width, around=1.0, scale=0.1)
        add(f"{name}.bias", width, scale=0.1)

    wide, eyes = tiny.hidden, tiny.eyes_hidden
    add("model.embed_tokens.weight", vocab, wide, scale=1.0)
    for layer in (f"model.layers.{i}" for i in range(tiny.layers)):
        norm(f"{layer}.input_layernorm", wide)
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            linear(f"{layer}.self_attn.{name}", wide, wide, 1.5)
        linear(f"{layer}.mlp.fc1", 4 * wide, wide)
        linear(f"{layer}.mlp.fc2", wide, 4 * wide)
    norm("model.final_layernorm", wide)
    linear("lm_head", vocab, wide, 8.0)
    tower = "model.vision_tower.vision_tower.vision_model"
    add(f"{tower}.embeddings.patch_embedding.weight", eyes, 3, 14, 14, scale=0.05)
    add(f"{tower}.embeddings.patch_embedding.bias", eyes)
    add(f"{tower}.embeddings.position_embedding.weight", (tiny.image_size // 14) ** 2, eyes, scale=0.3)
    for layer in (f"{tower}.encoder.layers.{i}" for i in range(tiny.eyes_layers)):
        norm(f"{layer}.layer_norm1", eyes)
        norm(f"{layer}.layer_norm2", eyes)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{name}", eyes, eyes, 1.5)
        linear(f"{layer}.mlp.fc1", tiny.eyes_mlp, eyes)
        linear(f"{layer}.mlp.fc2", eyes, tiny.eyes_mlp)
    linear("model.mm_projector.0", wide, eyes)
    linear("model.mm_projector.2", wide, wide)
    return tensors


def to_older(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under the older layout's names, with q, k and v in one."""
    older = {}
    for name, tensor in tensors.items():
        kind = name.rsplit(".", 1)[-1]
        if name.startswith("model.layers."):
            number = name.split(".")[2]
            new = f"transformer.h.{number}." + name.split(".", 3)[3]
            for ours, theirs in (("input_layernorm", "ln"), ("self_attn.dense", "mixer.out_proj")):
                new = new.replace(ours, theirs)
            if "q_proj" in new:
                same = [tensors[name.replace("q_proj", f"{x}_proj")] for x in "qkv"]
                older[f"transformer.h.{number}.mixer.Wqkv.{kind}"] = np.concatenate(same)
            elif "_proj" not in new or "out_proj" in new:
                older[new] = tensor
        elif name.startswith(("model.vision_tower", "model.mm_projector")):
            older["transformer" + name.removeprefix("model")] = tensor
        else:
            top = {"model.embed_tokens": "transformer.embd.wte", "model.final_layernorm": "lm_head.ln"}
            module = name.removesuffix(f".{kind}")
            older[f"{top.get(module, 'lm_head.linear')}.{kind}"] = tensor
    return older


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small only lose time when torch's threads wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer()


@pytest.fixture
def make_checkpoint(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., Path]:
    """make_checkpoint(Tiny(...), change=None) -> folder; `change(tensors, config)` may spoil what is written."""

    def make(tiny: Tiny, change: Callable[[dict[str, Any], dict[str, Any]], None] | None = None) -> Path:
        config = make_config(tiny, tokenizer)
        tensors = make_tensors(tiny, config["vocab_size"])
        tensors["lm_head.bias"][config["eos_token_id"]] = -100.0  # answers go on
        if tiny.layout == "older":
            tensors = to_older(tensors)
        if change is not None:
            change(tensors, config)
        path = tmp_path / f"checkpoint-{tiny.layout}-{tiny.head_size}-{tiny.seed}"
        checkpoint.write(path, tensors, config, tokenizer)
        return path

    return make
