"""The words that the families of language models share in a conversion.

In: nothing. Out: `Language` (a decoder's sizes) and `Part` (where a tensor lies in a checkpoint).
This file does not know any family.
"""

from __future__ import annotations

from dataclasses import dataclass

from impchat.models import bundle


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


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of a checkpoint, or some of its rows."""

    name: str
    rows: tuple[int, int] | None = None  # from the first up to but without the second; None: all
    of: int | None = None  # how many rows the whole tensor has, where `rows` are some of them
