"""The words that the families of language models share in a conversion.

In: nothing. Out: `Language` (a decoder's sizes), `Part` (where a tensor lies in a checkpoint), `Place` (where it lies
in a file that we write) and `Family` (what must be known of a family to convert it).
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
    rotary_dims: int  # of each head, the first ones
    rope_theta: float
    context: int  # positions it was made for
    window: int | None = None  # positions that each one looks back on at most; None: all


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a checkpoint, or some of its rows."""

    name: str
    rows: tuple[int, int] | None = None  # from the first up to but without the second; None: all
    of: int | None = None  # how many rows the whole tensor has, where `rows` are some of them


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies in a file."""

    at: int  # bytes from the beginning
    shape: Shape
    dtype: str  # "float16" or "float32"


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of language model, and how llama.cpp wants it."""

    name: bundle.Family
    template: bundle.Template
    arch: str  # llama.cpp's name
    pre_tokenizer: str  # llama.cpp's name for the way a text is split before it is cut into tokens
    chat_template: str  # Jinja, for programs that read it from the file; we write prompts ourselves
    describe: Callable[[Config], Language]  # config.json -> sizes
    shapes: Callable[[Language], dict[str, Shape]]  # transformers' name of every tensor -> shape
    gguf_keys: Callable[[Language], dict[str, int | float]]  # what the file's head says, beyond the tokenizer
    gguf_tensors: Callable[[Language], dict[str, tuple[str, ...]]]  # llama.cpp's name -> tensors stacked to make it


def common_keys(language: Language) -> dict[str, int | float]:
    """What every family's GGUF says in its head; `Family.gguf_keys` adds its own."""
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
