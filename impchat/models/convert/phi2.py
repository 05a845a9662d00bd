"""Phi-2: the names in its configuration and tensors, and what llama.cpp's `phi2` needs.

In: a configuration. Out: the decoder's sizes, its tensors' shapes and places (the newer and the older layout), and the
keys and tensors of its GGUF. Names are those of transformers' PhiForCausalLM, which the newer layout uses too.
This file does not know pictures, tokenizers or files.
"""

from __future__ import annotations

from impchat import settings
from impchat.models.convert.checkpoint import Config
from impchat.models.convert.parts import Family, Language, Part, Shape, common_keys

# transformers' name -> the older layout's, for tensors that correspond one to one; q, k and v were one, see below
_OLDER = {
    "input_layernorm": "ln",
    "self_attn.dense": "mixer.out_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OLDER_TOP = {
    "model.embed_tokens": "transformer.embd.wte",
    "model.final_layernorm": "lm_head.ln",
    "lm_head": "lm_head.linear",
}
# transformers' names -> llama.cpp's; several are stacked in this order
_GGUF = {
    "attn_norm": ("input_layernorm",),
    "attn_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn_output": ("self_attn.dense",),
    "ffn_up": ("mlp.fc1",),
    "ffn_down": ("mlp.fc2",),
}


def describe(config: Config) -> Language:
    """The decoder that config.json describes, with the newer or the older field names. Missing fields have Phi-2's
    values: a configuration saved by its class contains only differences from them."""
    hidden = config.integer("hidden_size", "n_embd", default=2560)
    heads = config.integer("num_attention_heads", "n_head", default=32)
    if hidden % heads:
        raise config.wrong("num_attention_heads", heads)
    config.only("num_key_value_heads", None, heads)  # llama.cpp's phi2 supports it, but no Imp uses it
    config.only("n_head_kv", None, heads)
    config.only("rope_scaling", None)
    config.only("qk_layernorm", False)
    if config.text("hidden_act", "activation_function", default="gelu_new") != "gelu_new":
        raise config.wrong("hidden_act", config.text("hidden_act", "activation_function"))
    if "rotary_dim" in config.values:
        rotary_dims = config.integer("rotary_dim")
    else:
        rotary_dims = int(config.number("partial_rotary_factor", default=0.4) * (hidden // heads))
    return Language(
        family="phi2",
        vocab=config.integer("vocab_size", default=51200),
        hidden=hidden,
        layers=config.integer("num_hidden_layers", "n_layer", default=32),
        heads=heads,
        mlp=config.integer("intermediate_size", "n_inner", default=4 * hidden),
        norm_eps=config.number("layer_norm_eps", "layer_norm_epsilon", default=1e-5),
        rotary_dims=rotary_dims,
        rope_theta=config.number("rope_theta", default=10000.0),
        context=config.integer("max_position_embeddings", "n_positions", default=2048),
    )


def shapes(language: Language) -> dict[str, Shape]:
    """Name -> shape of every tensor of the decoder."""
    wide, mlp = language.hidden, language.mlp
    sizes: dict[str, Shape] = {
        "model.embed_tokens.weight": (language.vocab, wide),
        "model.final_layernorm.weight": (wide,),
        "model.final_layernorm.bias": (wide,),
        "lm_head.weight": (language.vocab, wide),
        "lm_head.bias": (language.vocab,),
    }
    for layer in (f"model.layers.{i}." for i in range(language.layers)):
        sizes |= {f"{layer}input_layernorm.weight": (wide,), f"{layer}input_layernorm.bias": (wide,)}
        linears = {f"self_attn.{name}": (wide, wide) for name in ("q_proj", "k_proj", "v_proj", "dense")}
        for name, (rows, columns) in (linears | {"mlp.fc1": (mlp, wide), "mlp.fc2": (wide, mlp)}).items():
            sizes |= {f"{layer}{name}.weight": (rows, columns), f"{layer}{name}.bias": (rows,)}
    return sizes


def older_parts(language: Language) -> dict[str, Part]:
    return {name: _older_part(name, language) for name in shapes(language)}


def gguf_keys(language: Language) -> dict[str, int | float]:
    """The GGUF header keys that llama.cpp reads, without the tokenizer."""
    return common_keys(language) | {
        "attention.layer_norm_epsilon": language.norm_eps,
        "rope.dimension_count": language.rotary_dims,
    }


def gguf_tensors(language: Language) -> dict[str, tuple[str, ...]]:
    """llama.cpp's name -> the tensors that are stacked into it."""
    tensors: dict[str, tuple[str, ...]] = {"token_embd.weight": ("model.embed_tokens.weight",)}
    for i in range(language.layers):
        for theirs, ours in _GGUF.items():
            for kind in ("weight", "bias"):
                tensors[f"blk.{i}.{theirs}.{kind}"] = tuple(f"model.layers.{i}.{name}.{kind}" for name in ours)
    for kind in ("weight", "bias"):
        tensors[f"output_norm.{kind}"] = (f"model.final_layernorm.{kind}",)
        tensors[f"output.{kind}"] = (f"lm_head.{kind}",)
    return tensors


def _older_part(name: str, language: Language) -> Part:
    module, kind = name.rsplit(".", 1)
    if module in _OLDER_TOP:
        return Part(f"{_OLDER_TOP[module]}.{kind}")
    _, _, number, inner = module.split(".", 3)
    layer = f"transformer.h.{number}."
    if inner in _OLDER:
        return Part(f"{layer}{_OLDER[inner]}.{kind}")
    start = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj").index(inner) * language.hidden
    return Part(f"{layer}mixer.Wqkv.{kind}", (start, start + language.hidden), 3 * language.hidden)


FAMILY = Family(
    name="phi2",
    template="phi2",
    arch="phi2",
    pre_tokenizer="phi-2",
    chat_template=(
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }} "
        f"{{% else %}}{settings.SYSTEM} {{% endif %}}"
        "{% for message in messages %}"
        "{% if message['role'] == 'user' %}USER: {{ message['content'] }} ASSISTANT:"
        "{% elif message['role'] == 'assistant' %} {{ message['content'] }}</s>{% endif %}"
        "{% endfor %}"
    ),
    describe=describe,
    shapes=shapes,
    gguf_keys=gguf_keys,
    gguf_tensors=gguf_tensors,
)
