"""Small random Imp checkpoints with the family's exact names, configurations and tokenizers.

`Tiny` describes a checkpoint; `write` writes it into a folder in the layout of its repository. All values are exact in
float16, so that a conversion to 16 bits loses nothing, and large enough for logits that differ between tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from impchat.models.convert import checkpoint

Change = Callable[[dict[str, Any], dict[str, Any]], None]

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant.",
    "USER: \nWhat colour is the circle? ASSISTANT: The circle is red.",
    "图里有几个圆？ 图里有三个红色的圆和一个蓝色的正方形。",
    "def area(side):\n    return side * side\n\n\tprint(area(12))",
    "it's I'm we've they'd she'll don't 3.14159 2024 100% [0.12, 0.34, 0.56, 0.78]",
] * 4


@dataclass(frozen=True)
class Tiny:
    """The description of a random checkpoint; the defaults are small and fast."""

    layout: str = "newer"  # or "older", "qwen2", "phi3"
    head_size: int = 32
    heads: int = 4
    layers: int = 3
    eyes_hidden: int = 96
    eyes_heads: int = 3
    eyes_layers: int = 3  # the layers that are kept
    eyes_mlp: int = 160
    image_size: int = 56
    aspect: str = "square"
    seed: int = 0
    eyes_in: str = "vision_config"  # the place of the vision configuration: a field, or a folder
    context: int = 512
    bfloat16: bool = False

    @property
    def hidden(self) -> int:
        return self.head_size * self.heads

    @property
    def mlp(self) -> int:
        """In the real models' proportion, a multiple of 32."""
        share = {"qwen2": 5504 / 2048, "phi3": 8192 / 3072}.get(self.layout, 4)
        return round(share * self.hidden / 32) * 32


_SEEN = {"layers": 2, "eyes_hidden": 64, "eyes_heads": 2, "eyes_layers": 2, "eyes_mlp": 96, "context": 2048}
_TOWER = "google/siglip-so400m-patch14-384"
# The five models in the form of their repositories, but small. Head and picture sizes are the real ones.
FAMILY = {
    "imp-v1-3b": Tiny("newer", 80, 2, image_size=384, eyes_in="vision_tower_config", seed=1, **_SEEN),
    "imp-v1.5-3b": Tiny("newer", 80, 2, image_size=384, eyes_in="vision_tower_config", seed=2, **_SEEN),
    "imp-v1.5-3b-196": Tiny("older", 80, 2, image_size=196, eyes_in="siglip-so400m-patch14-196", seed=3, **_SEEN),
    "imp-v1.5-2b": Tiny("qwen2", 128, 2, image_size=384, eyes_in="vision_tower_config", seed=4, **_SEEN),
    "imp-v1.5-4b": Tiny(
        "phi3", 96, 2, image_size=384, aspect="pad", eyes_in="vision_tower_config", seed=5, bfloat16=True, **_SEEN
    ),
}


@cache
def train_tokenizer(layout: str = "newer") -> Tokenizer:
    """A small tokenizer of the same kind as the layout's models."""
    return {"qwen2": _train_qwen, "phi3": _train_phi3}.get(layout, _train_phi2)()


def _train_phi2() -> Tokenizer:
    """Byte-level BPE: GPT-2's split, all 256 bytes, runs of spaces as added tokens, `</s>`, `<image>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    _train_bytes(tokenizer)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (8, 4, 2)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("</s>", "<image>")])
    return tokenizer


def _train_qwen() -> Tokenizer:
    """Byte-level BPE: Qwen's split of NFC text, its three markers. `<image>` is not a token."""
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), letters])
    _train_bytes(tokenizer)
    markers = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in markers])
    return tokenizer


def _train_bytes(tokenizer: Tokenizer) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainer)


def _train_phi3() -> Tokenizer:
    """SentencePiece's BPE in the form of tokenizer.json: control tokens, 256 bytes, pieces by score, letters, and
    markers that strip the white space after them. Trained pieces come first, then runs of spaces."""
    found = Tokenizer(models.BPE(unk_token="<unk>"))
    found.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    found.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=240, show_progress=False))
    model = json.loads(found.to_str())["model"]
    pieces = ["".join(m if isinstance(m, list) else m.split(" ")) for m in model["merges"]]
    pieces += ["▁" * n for n in (2, 4, 3, 8, 6)]
    letters = [text for text in model["vocab"] if len(text) == 1]
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(pieces), *letters]
    vocab = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    scores = {text: -float(rank) for rank, text in enumerate(pieces)} | {"▁" * n: -1e9 for n in range(2, 17)}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges(vocab, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    last = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(last)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>")])
    tokenizer.add_tokens([AddedToken("</s>", rstrip=True, normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    markers = ("assistant", "placeholder1", "placeholder2", "system", "end", "placeholder3", "user")
    tokenizer.add_special_tokens([AddedToken(f"<|{t}|>", special=True, normalized=False, rstrip=True) for t in markers])
    return tokenizer


def merges(vocab: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third one, best score first, as transformers derives them from
    SentencePiece's pieces; of equal scores the longer left half comes first."""
    ways = []
    for text, score in scores.items():
        for cut in range(1, len(text)):
            if {text, text[:cut], text[cut:]} <= vocab.keys():
                ways.append((score, text[:cut], text[cut:]))
    return [way[1:] for way in sorted(ways, key=lambda w: (w[0], len(w[1]), len(w[2])), reverse=True)]


def make_config(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json in the layout's form."""
    tower = "checkpoints/" + tiny.eyes_in if tiny.eyes_in.startswith("siglip") else _TOWER
    shared = {
        "tie_word_embeddings": False,
        "vocab_size": -(-(tokenizer.get_vocab_size() + 1) // 64) * 64,
        "image_aspect_ratio": tiny.aspect,
        "freeze_mm_mlp_adapter": False,
        "mm_hidden_size": tiny.eyes_hidden,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "use_mm_proj": True,
        "torch_dtype": "bfloat16" if tiny.bfloat16 else "float16",
    }
    if not tiny.eyes_in.startswith("siglip"):
        shared[tiny.eyes_in] = make_vision_config(tiny)
    return shared | _LANGUAGES[tiny.layout](tiny, tokenizer)


def make_vision_config(tiny: Tiny) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": tiny.eyes_hidden,
        "image_size": tiny.image_size,
        "intermediate_size": tiny.eyes_mlp,
        "layer_norm_eps": 1e-06,
        "num_attention_heads": tiny.eyes_heads,
        "num_channels": 3,
        "num_hidden_layers": tiny.eyes_layers + 1,
        "patch_size": 14,
    }


def _older(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    return _imp(tokenizer) | {
        "n_embd": tiny.hidden,
        "n_layer": tiny.layers,
        "n_head": tiny.heads,
        "n_head_kv": None,
        "n_inner": None,
        "n_positions": tiny.context,
        "rotary_dim": _rotary(tiny),
        "layer_norm_epsilon": 1e-5,
        "flash_attn": False,
        "flash_rotary": False,
        "fused_dense": False,
    }


def _newer(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    return _imp(tokenizer) | {
        "hidden_size": tiny.hidden,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": tiny.heads,
        "intermediate_size": tiny.mlp,
        "max_position_embeddings": tiny.context,
        "partial_rotary_factor": _rotary(tiny) / tiny.head_size,
        "hidden_act": "gelu_new",
        "qk_layernorm": False,
    }


def _rotary(tiny: Tiny) -> int:
    return 32 if tiny.head_size == 80 else tiny.head_size // 2


def _imp(tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["ImpForCausalLM"],
        "model_type": "imp",
        "activation_function": "gelu_new",
        "eos_token_id": tokenizer.token_to_id("</s>"),
        "image_token": "<image>",
        "image_token_index": tokenizer.token_to_id("<image>"),
        "tokenizer_model_max_length": 3072,
    }


def _qwen2(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    return _gated(tiny) | {
        "architectures": ["ImpQwen2ForCausalLM"],
        "model_type": "imp_qwen2",
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "image_token": "<image>",
        "image_token_index": tokenizer.get_vocab_size(),
        "max_window_layers": 21,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tokenizer_model_max_length": 2560,
    }


def _phi3(tiny: Tiny, tokenizer: Tokenizer) -> dict[str, Any]:
    return _gated(tiny) | {
        "architectures": ["ImpPhi3ForCausalLM"],
        "model_type": "imp_phi3",
        "activation_function": "gelu_new",  # unused: `hidden_act` is that of the MLP
        "bos_token_id": tokenizer.token_to_id("<s>"),
        "eos_token_id": tokenizer.token_to_id("<|end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "original_max_position_embeddings": tiny.context,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": 2047,
        "tokenizer_model_max_length": 2560,
    }


def _gated(tiny: Tiny) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "hidden_size": tiny.hidden,
        "intermediate_size": tiny.mlp,
        "max_position_embeddings": tiny.context,
        "num_attention_heads": tiny.heads,
        "num_hidden_layers": tiny.layers,
        "num_key_value_heads": tiny.heads,
    }


_LANGUAGES = {"older": _older, "newer": _newer, "qwen2": _qwen2, "phi3": _phi3}


class _Draw:
    """Random tensors, created on request."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.tensors: dict[str, np.ndarray] = {}

    def add(self, name: str, *shape: int, scale: float = 0.02, around: float = 0.0) -> None:
        values = around + scale * self._random.standard_normal(shape)
        self.tensors[name] = values.astype(np.float16).astype(np.float32)

    def linear(self, name: str, rows: int, columns: int, gain: float = 1.0, bias: bool = True) -> None:
        self.add(f"{name}.weight", rows, columns, scale=gain * columns**-0.5)
        if bias:
            self.add(f"{name}.bias", rows, scale=0.1)

    def norm(self, name: str, width: int, bias: bool = True) -> None:
        self.add(f"{name}.weight", width, around=1.0, scale=0.1)
        if bias:
            self.add(f"{name}.bias", width, scale=0.1)


def make_tensors(tiny: Tiny, vocab: int) -> dict[str, np.ndarray]:
    """Random weights; both Phi-2 layouts get the newer one's names."""
    draw = _Draw(tiny.seed)
    wide, eyes = tiny.hidden, tiny.eyes_hidden
    draw.add("model.embed_tokens.weight", vocab, wide, scale=1.0)
    if tiny.layout == "qwen2":
        _add_qwen2(draw, tiny)
    elif tiny.layout == "phi3":
        _add_phi3(draw, tiny)
    else:
        _add_phi2(draw, tiny)
    draw.linear("lm_head", vocab, wide, 8.0, bias=tiny.layout in ("older", "newer"))
    tower = "model.vision_tower.vision_tower.vision_model"
    draw.add(f"{tower}.embeddings.patch_embedding.weight", eyes, 3, 14, 14, scale=0.05)
    draw.add(f"{tower}.embeddings.patch_embedding.bias", eyes)
    draw.add(f"{tower}.embeddings.position_embedding.weight", (tiny.image_size // 14) ** 2, eyes, scale=0.3)
    for layer in (f"{tower}.encoder.layers.{i}" for i in range(tiny.eyes_layers)):
        draw.norm(f"{layer}.layer_norm1", eyes)
        draw.norm(f"{layer}.layer_norm2", eyes)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            draw.linear(f"{layer}.self_attn.{name}", eyes, eyes, 1.5)
        draw.linear(f"{layer}.mlp.fc1", tiny.eyes_mlp, eyes)
        draw.linear(f"{layer}.mlp.fc2", eyes, tiny.eyes_mlp)
    draw.linear("model.mm_projector.0", wide, eyes)
    draw.linear("model.mm_projector.2", wide, wide)
    return draw.tensors


def _add_phi2(draw: _Draw, tiny: Tiny) -> None:
    wide = tiny.hidden
    for layer in (f"model.layers.{i}" for i in range(tiny.layers)):
        draw.norm(f"{layer}.input_layernorm", wide)
        for name in ("q_proj", "k_proj", "v_proj", "dense"):
            draw.linear(f"{layer}.self_attn.{name}", wide, wide, 1.5)
        draw.linear(f"{layer}.mlp.fc1", tiny.mlp, wide)
        draw.linear(f"{layer}.mlp.fc2", wide, tiny.mlp)
    draw.norm("model.final_layernorm", wide)


def _add_qwen2(draw: _Draw, tiny: Tiny) -> None:
    wide = tiny.hidden
    for layer in (f"model.layers.{i}" for i in range(tiny.layers)):
        draw.norm(f"{layer}.input_layernorm", wide, bias=False)
        for name in ("q_proj", "k_proj", "v_proj"):
            draw.linear(f"{layer}.self_attn.{name}", wide, wide, 1.5)
        draw.linear(f"{layer}.self_attn.o_proj", wide, wide, 1.5, bias=False)
        draw.norm(f"{layer}.post_attention_layernorm", wide, bias=False)
        draw.linear(f"{layer}.mlp.gate_proj", tiny.mlp, wide, 2.0, bias=False)
        draw.linear(f"{layer}.mlp.up_proj", tiny.mlp, wide, bias=False)
        draw.linear(f"{layer}.mlp.down_proj", wide, tiny.mlp, bias=False)
    draw.norm("model.norm", wide, bias=False)


def _add_phi3(draw: _Draw, tiny: Tiny) -> None:
    wide = tiny.hidden
    for layer in (f"model.layers.{i}" for i in range(tiny.layers)):
        draw.norm(f"{layer}.input_layernorm", wide, bias=False)
        draw.linear(f"{layer}.self_attn.qkv_proj", 3 * wide, wide, 1.5, bias=False)
        draw.linear(f"{layer}.self_attn.o_proj", wide, wide, 1.5, bias=False)
        draw.norm(f"{layer}.post_attention_layernorm", wide, bias=False)
        draw.linear(f"{layer}.mlp.gate_up_proj", 2 * tiny.mlp, wide, 2.0, bias=False)
        draw.linear(f"{layer}.mlp.down_proj", wide, tiny.mlp, bias=False)
    draw.norm("model.norm", wide, bias=False)


def to_older(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under the older layout's names, with q, k and v in one tensor."""
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


def write(
    path: Path, tiny: Tiny, change: Change | None = None, *, shards: int = 1, tokenizer: Tokenizer | None = None
) -> Path:
    """Write a checkpoint of random weights into the folder `path` and return it; `change(tensors, config)` can
    modify the content first. `tokenizer` replaces that of `train_tokenizer` and needs the layout's special tokens."""
    tokenizer = tokenizer or train_tokenizer(tiny.layout)
    config = make_config(tiny, tokenizer)
    tensors: dict[str, Any] = make_tensors(tiny, config["vocab_size"])
    _go_on(tiny, tensors, config["eos_token_id"])
    if tiny.layout == "older":
        tensors = to_older(tensors)
    if change is not None:
        change(tensors, config)
    checkpoint.write(path, tensors, config, tokenizer)
    _write_tokenizer(path, tiny, tokenizer, config)
    if tiny.eyes_in.startswith("siglip"):
        folder = path / tiny.eyes_in
        folder.mkdir(exist_ok=True)
        described = {"model_type": "siglip", "vision_config": make_vision_config(tiny)}
        (folder / "config.json").write_text(json.dumps(described))
    if tiny.bfloat16:
        _to_bfloat16(path / checkpoint.WEIGHTS, tensors)
    if shards > 1:
        cut(path, shards)
    return path


def _go_on(tiny: Tiny, tensors: dict[str, Any], eos: int) -> None:
    """Prevent answers from ending by themselves: comparing answers of one word would show little."""
    if "lm_head.bias" in tensors:
        tensors["lm_head.bias"][eos] = -100.0
    else:
        tensors["lm_head.weight"][eos] = 0.0


def _write_tokenizer(path: Path, tiny: Tiny, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """Write the tokenizer files of the family's repositories besides tokenizer.json."""
    if tiny.layout == "phi3":
        eos = [tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|assistant|>", "<|end|>")]
        config_json = {"add_bos_token": True, "add_eos_token": False, "tokenizer_class": "LlamaTokenizer"}
    elif tiny.layout == "qwen2":
        eos = [config["eos_token_id"], config["bos_token_id"]]
        config_json = {"add_prefix_space": False, "bos_token": None, "tokenizer_class": "Qwen2Tokenizer"}
    else:
        return
    (path / checkpoint.GENERATION).write_text(json.dumps({"eos_token_id": eos}))
    (path / checkpoint.TOKENIZER_CONFIG).write_text(json.dumps(config_json))


def _to_bfloat16(path: Path, tensors: dict[str, Any]) -> None:
    import torch
    from safetensors.torch import save_file as save

    save({name: torch.from_numpy(values).bfloat16() for name, values in tensors.items()}, path)


def cut(path: Path, shards: int) -> None:
    """Split model.safetensors of the folder `path` into `shards` files with an index."""
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    tensors = load_file(path / checkpoint.WEIGHTS)
    names = [f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)]
    where = {name: names[at * shards // len(tensors)] for at, name in enumerate(sorted(tensors))}
    for file in names:
        save({name: tensors[name] for name in tensors if where[name] == file}, path / file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (path / checkpoint.INDEX).write_text(json.dumps(index))
    (path / checkpoint.WEIGHTS).unlink()


def to_vocab_and_merges(path: Path) -> None:
    """Write the content of tokenizer.json to vocab.json, merges.txt and tokenizer_config.json, as older repositories
    do."""
    values = json.loads((path / checkpoint.TOKENIZER).read_text(encoding="utf-8"))
    model = values["model"]
    pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (path / checkpoint.VOCAB).write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (path / checkpoint.MERGES).write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", encoding="utf-8")
    config_json = json.loads((path / checkpoint.TOKENIZER_CONFIG).read_text())
    config_json["added_tokens_decoder"] = {
        str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in values["added_tokens"]
    }
    (path / checkpoint.TOKENIZER_CONFIG).write_text(json.dumps(config_json))
    (path / checkpoint.TOKENIZER).unlink()
