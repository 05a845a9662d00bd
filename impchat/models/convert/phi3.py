"""Phi-3: the names in its configuration and tensors, and what llama.cpp's `phi3` needs.

In: a configuration. Out: the decoder's sizes, its tensors' shapes and places, and the keys and tensors of its GGUF.
Names are those of transformers' Phi3ForCausalLM; q, k and v are one tensor, and so are the MLP's gate and up
projections.
This file does not know pictures, tokenizers or files.
"""

from __future__ import annotations

from impchat import settings
from impchat.models.convert.checkpoint import Config
from impchat.models.convert.parts import Family, Language, Shape, common_keys

# llama.cpp's name -> transformers'
_GGUF = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}


def describe(config: Config) -> Language:
    """The decoder that config.json describes."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    if hidden % heads:
        raise config.wrong("num_attention_heads", heads)
    config.only("num_key_value_heads", None, heads)  # llama.cpp's phi3 supports it, but no Imp uses it
    config.only("hidden_act", "silu")
    config.only("rope_scaling", None)  # used by Phi-3's long-context variant
    config.only("partial_rotary_factor", 1.0)
    config.only("tie_word_embeddings", False)
    context = config.integer("max_position_embeddings")
    window = config.integer("sliding_window", default=context)
    return Language(
        family="phi3",
        vocab=config.integer("vocab_size"),
        hidden=hidden,
        layers=config.integer("num_hidden_layers"),
        heads=heads,
        mlp=config.integer("intermediate_size"),
        norm_eps=config.number("rms_norm_eps"),
        rotary_dims=hidden // heads,
        rope_theta=config.number("rope_theta", default=10000.0),
        context=context,
        window=window if window < context else None,
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
        sizes |= {
            f"{layer}input_layernorm.weight": (wide,),
            f"{layer}self_attn.qkv_proj.weight": (3 * wide, wide),
            f"{layer}self_attn.o_proj.weight": (wide, wide),
            f"{layer}post_attention_layernorm.weight": (wide,),
            f"{layer}mlp.gate_up_proj.weight": (2 * mlp, wide),
            f"{layer}mlp.down_proj.weight": (wide, mlp),
        }
    return sizes


def gguf_keys(language: Language) -> dict[str, int | float]:
    """The GGUF header keys that llama.cpp reads, without the tokenizer."""
    return common_keys(language) | {
        "rope.scaling.original_context_length": language.context,
        "attention.layer_norm_rms_epsilon": language.norm_eps,
        "attention.sliding_window": language.window or 0,  # llama.cpp reads it, but attends to all positions
        "rope.dimension_count": language.rotary_dims,
    }


def gguf_tensors(language: Language) -> dict[str, tuple[str, ...]]:
    """llama.cpp's name -> the tensors that are stacked into it."""
    tensors: dict[str, tuple[str, ...]] = {"token_embd.weight": ("model.embed_tokens.weight",)}
    for i in range(language.layers):
        tensors |= {f"blk.{i}.{theirs}.weight": (f"model.layers.{i}.{ours}.weight",) for theirs, ours in _GGUF.items()}
    return tensors | {"output_norm.weight": ("model.norm.weight",), "output.weight": ("lm_head.weight",)}


FAMILY = Family(
    name="phi3",
    template="phi3",
    arch="phi3",
    pre_tokenizer="default",
    chat_template=(
        f"{{% if messages[0]['role'] != 'system' %}}<|system|>\n{settings.SYSTEM}<|end|>\n{{% endif %}}"
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    describe=describe,
    shapes=shapes,
    gguf_keys=gguf_keys,
    gguf_tensors=gguf_tensors,
)
