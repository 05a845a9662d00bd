"""Types shared by the families of language models in a conversion.

In: nothing. Out: `Language` (a decoder's sizes), `Part` (the place of a tensor in a checkpoint), `Place` (its place in
a file that we write) and `Family` (what a conversion must know about a family).
This file does not know any family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from impchat import bundle
from impchat.models.convert.checkpoint import Config

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """The sizes of a decoder."""

    family: bundle.Family
    vocab: int  # rows of the embedding; the tokenizer may have fewer
    hidden: int
    layers: int
    heads: int
    mlp: int
    norm_eps: float
    rotary_dims: int  # the first ones of each head
    rope_theta: float
    context: int  # positions that the model was trained for
    window: int | None = None  # maximum positions that each one attends to; None: all


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a checkpoint, or some of its rows."""

    name: str
    rows: tuple[int, int] | None = None  # (start, end); None: all
    of: int | None = None  # number of rows of the whole tensor, if `rows` is given


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a tensor in a file."""

    at: int  # byte offset
    shape: Shape
    dtype: str  # "float16" or "float32"


@dataclass(frozen=True, slots=True)
class Family:
    """A family of language models, and how llama.cpp needs it."""

    name: bundle.Family
    template: bundle.Template
    arch: str  # llama.cpp's name
    pre_tokenizer: str  # llama.cpp's name of the pre-tokenizer
    chat_template: str  # Jinja, for programs that read it from the file; ImpChat does not use it
    describe: Callable[[Config], Language]  # config.json -> sizes
    shapes: Callable[[Language], dict[str, Shape]]  # transformers' name of every tensor -> shape
    gguf_keys: Callable[[Language], dict[str, int | float]]  # keys of the GGUF header, without the tokenizer
    gguf_tensors: Callable[[Language], dict[str, tuple[str, ...]]]  # llama.cpp's name -> tensors stacked into it


def common_keys(language: Language) -> dict[str, int | float]:
    """The GGUF header keys of every family; `Family.gguf_keys` adds others."""
    return {
        "context_length": language.context,
        "embedding_length": language.hidden,
        "feed_forward_length": language.mlp,
        "block_count": language.layers,
        "attention.head_count": language.heads,
        "attention.head_count_kv": language.heads,
        "rope.freq_base": language.rope_theta,
        "vocab_size": language.vocab,
    }
