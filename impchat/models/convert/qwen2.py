"""Qwen1.5: the names in its configuration and tensors, and what llama.cpp's `qwen2` needs.

In: a configuration. Out: the decoder's sizes, its tensors' shapes and places, and the keys and tensors of its GGUF.
Names are those of transformers' Qwen2ForCausalLM. This file does not know pictures, tokenizers or files.
"""

from __future__ import annotations

from impchat import settings
from impchat.models.convert.checkpoint import Config
from impchat.models.convert.parts import Family, Language, Shape, common_keys

# llama.cpp's name -> transformers', and which of weight and bias exist
_GGUF = {
    "attn_norm": ("input_layernorm", ("weight",)),
    "attn_q": ("self_attn.q_proj", ("weight", "bias")),
    "attn_k": ("self_attn.k_proj", ("weight", "bias")),
    "attn_v": ("self_attn.v_proj", ("weight", "bias")),
    "attn_output": ("self_attn.o_proj", ("weight",)),
    "ffn_norm": ("post_attention_layernorm", ("weight",)),
    "ffn_gate": ("mlp.gate_proj", ("weight",)),
    "ffn_up": ("mlp.up_proj", ("weight",)),
    "ffn_down": ("mlp.down_proj", ("weight",)),
}


def describe(config: Config) -> Language:
    """The decoder that config.json describes."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if hidden % heads:
        raise config.wrong("num_attention_heads", heads)
    config.only("num_key_value_heads", heads)  # llama.cpp's qwen2 supports it, but no Imp uses it
    config.only("hidden_act", "silu")
    config.only("rope_scaling", None)
    config.only("use_sliding_window", False)
    config.only("tie_word_embeddings", False)
    return Language(
        family="qwen2",
        vocab=config.integer("vocab_size"),
        hidden=hidden,
        layers=config.integer("num_hidden_layers"),
        heads=heads,
        mlp=config.integer("intermediate_size"),
        norm_eps=config.number("rms_norm_eps"),
        rotary_dims=hidden // heads,
        rope_theta=config.number("rope_theta"),
        context=config.integer("max_position_embeddings"),
    )


def shapes(language: Language) -> dict[str, Shape]:
    """Name -> shape of every tensor of the decoder."""
    wide, mlp = language.hidden, language.mlp
    sizes: dict[str, Shape] = {
        "model.embed_tokens.weight": (language.vocab, wide),
        "model.norm.weight": (wide,),
        "lm_head.weight": (language.vocab, wide),
    }
    for layer in (f"model.layers.{i}." for i in range(language.layers)):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            sizes[f"{layer}{norm}.weight"] = (wide,)
        for name in ("q_proj", "k_proj", "v_proj"):
            sizes |= {f"{layer}self_attn.{name}.weight": (wide, wide), f"{layer}self_attn.{name}.bias": (wide,)}
        sizes[f"{layer}self_attn.o_proj.weight"] = (wide, wide)
        for name, shape in {"gate_proj": (mlp, wide), "up_proj": (mlp, wide), "down_proj": (wide, mlp)}.items():
            sizes[f"{layer}mlp.{name}.weight"] = shape
    return sizes


def gguf_keys(language: Language) -> dict[str, int | float]:
    """The GGUF header keys that llama.cpp reads, without the tokenizer."""
    return common_keys(language) | {
        "attention.layer_norm_rms_epsilon": language.norm_eps,
    }


def gguf_tensors(language: Language) -> dict[str, tuple[str, ...]]:
    """llama.cpp's name -> the tensors that are stacked into it."""
    tensors: dict[str, tuple[str, ...]] = {"token_embd.weight": ("model.embed_tokens.weight",)}
    for i in range(language.layers):
        for theirs, (ours, kinds) in _GGUF.items():
            tensors |= {f"blk.{i}.{theirs}.{kind}": (f"model.layers.{i}.{ours}.{kind}",) for kind in kinds}
    return tensors | {"output_norm.weight": ("model.norm.weight",), "output.weight": ("lm_head.weight",)}


FAMILY = Family(
    name="qwen2",
    template="qwen",
    arch="qwen2",
    pre_tokenizer="qwen2",
    chat_template=(
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
        f"{settings.SYSTEM}<|im_end|>\n{{% endif %}}"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    describe=describe,
    shapes=shapes,
    gguf_keys=gguf_keys,
    gguf_tensors=gguf_tensors,
)
