"""A checkpoint's tokenizer as llama.cpp wants it told: a list of tokens, their kinds, and the merges.

In: an open checkpoint with a byte-level BPE tokenizer.json. Out: a `Vocabulary`.
This file does not know models or GGUF files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from impchat.errors import ModelError
from impchat.models.convert.checkpoint import ADDED_TOKENS, TOKENIZER, Folder

# llama.cpp's kinds of tokens
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Byte-level BPE."""

    tokens: tuple[str, ...]  # by id; ordinary ones in byte-level letters, added ones as they read
    kinds: tuple[int, ...]
    merges: tuple[str, ...]  # "left right", the strongest first
    eos: int


def read(checkpoint: Folder, size: int) -> Vocabulary:
    """The tokenizer of `checkpoint`, filled up with unused tokens to `size`, the rows of the embedding.

    Raises ModelError "checkpoint.tokenizer" with the reason why it cannot be told to llama.cpp."""
    values = checkpoint.json(TOKENIZER)
    model = values.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _unusable(checkpoint, "not byte-level BPE")
    splitter = values.get("pre_tokenizer") or {}
    if splitter.get("type") != "ByteLevel" or splitter.get("add_prefix_space") or not splitter.get("use_regex", True):
        raise _unusable(checkpoint, "pre_tokenizer")  # llama.cpp's "phi-2" is GPT-2's way to split, nothing else
    if values.get("normalizer") is not None:
        raise _unusable(checkpoint, "normalizer")
    tokens = {number: (token, NORMAL) for token, number in model["vocab"].items()}
    tokens |= _added(checkpoint, values)
    if max(tokens) >= size:
        raise _unusable(checkpoint, f"token {max(tokens)}, embedding {size}")
    rows = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    eos = checkpoint.config.integer("eos_token_id")
    if rows[eos][1] != CONTROL:
        raise _unusable(checkpoint, f"eos_token_id {eos}")
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
    return Vocabulary(tuple(text for text, _ in rows), tuple(kind for _, kind in rows), tuple(merges), eos)


def _added(checkpoint: Folder, values: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """The tokens that are found in a text before it is split. Those that only added_tokens.json knows are special."""
    added: dict[int, tuple[str, int]] = {}
    for token in values.get("added_tokens", []):
        special = bool(token.get("special"))
        if not special and any(token.get(rule) for rule in ("single_word", "lstrip", "rstrip")):
            raise _unusable(checkpoint, f"added token {token['content']!r}")  # llama.cpp knows no such rules
        added[token["id"]] = (token["content"], CONTROL if special else USER_DEFINED)
    if (checkpoint.path / ADDED_TOKENS).is_file():
        for text, number in checkpoint.json(ADDED_TOKENS).items():
            if added.setdefault(number, (text, CONTROL))[0] != text:
                raise _unusable(checkpoint, f"token {number}")
    return added


def _unusable(checkpoint: Folder, detail: str) -> ModelError:
    return ModelError("checkpoint.tokenizer", path=str(checkpoint.path), detail=detail)
