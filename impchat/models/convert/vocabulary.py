"""A checkpoint's tokenizer as llama.cpp wants it told: a list of tokens, their kinds, and the merges or scores.

In: a checkpoint's folder with a tokenizer.json, or with a vocab.json and merges.txt: byte-level BPE as Phi-2 and Qwen
have it, or SentencePiece's BPE with byte fallback, as Phi-3 has it. Out: a `Vocabulary`. Whatever llama.cpp would do in
another way than the tokenizer does is refused. This file does not know models or GGUF files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from impchat.errors import ModelError
from impchat.models.convert.checkpoint import (
    ADDED_TOKENS,
    GENERATION,
    MERGES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCAB,
    Folder,
)
from impchat.prompts import TEMPLATES

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# llama.cpp's kinds of tokens
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_LOW = -1e6  # a score that loses against every merge's
_SPACE = "\u2581"  # how SentencePiece writes a space
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
# What transformers takes an added token for that says no more than its text
_PLAIN_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
# How the tokenizers of llama.cpp's name split a text, and what they do to it first
_SPLITTERS: dict[str, Any] = {
    "phi-2": _BYTE_LEVEL | {"use_regex": True},
    "qwen2": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _QWEN_SPLIT}, "behavior": "Isolated", "invert": False},
            _BYTE_LEVEL | {"use_regex": False},
        ],
    },
    "default": None,
}
_NORMALIZERS: dict[str, Any] = {
    "phi-2": None,
    "qwen2": {"type": "NFC"},
    "default": {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": _SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer."""

    model: str  # llama.cpp's name: "gpt2" for byte-level BPE, "llama" for SentencePiece
    tokens: tuple[str, ...]  # by id; byte-level ones in byte-level letters, added ones as they read
    kinds: tuple[int, ...]
    merges: tuple[str, ...]  # "left right", the strongest first; SentencePiece: none
    scores: tuple[float, ...]  # SentencePiece: of what is merged first the highest; byte-level BPE: none
    eos: tuple[int, ...]  # the first one ends an answer, others may
    bos: int | None
    unknown: int | None
    add_bos: bool  # a prompt begins with bos
    nfc: bool  # text is brought to Unicode's form NFC first; llama.cpp does not
    tight: bool  # markers swallow the white space behind them


def read(folder: Folder, size: int, splitter: str) -> Vocabulary:
    """The tokenizer in `folder`, filled up with unused tokens to `size`, the rows of the embedding. `splitter`:
    llama.cpp's name for the way a text is split.

    Raises ModelError "checkpoint.tokenizer" with the reason why it cannot be told to llama.cpp."""
    values = _values(folder, splitter)
    model = values.get("model")
    pieces = splitter == "default"
    tight = _is_tight(folder, values) if pieces else False
    if not isinstance(model, dict) or model.get("type") != "BPE" or bool(model.get("byte_fallback")) is not pieces:
        raise _unusable(folder, "not SentencePiece with byte fallback" if pieces else "not byte-level BPE")
    for field, expected in (("pre_tokenizer", _SPLITTERS[splitter]), ("normalizer", _NORMALIZERS[splitter])):
        if not _is_same(values.get(field), expected):
            raise _unusable(folder, field)
    merges = [" ".join(merge) if isinstance(merge, list) else str(merge) for merge in model["merges"]]
    tokens = {number: (token, NORMAL) for token, number in model["vocab"].items()}
    if pieces:
        tokens |= _byte_tokens(folder, model["vocab"])
    tokens |= _added(folder, values, pieces, tight)
    _name_image(folder, tokens)
    if max(tokens) >= size:
        raise _unusable(folder, f"token {max(tokens)}, embedding {size}")
    rows = [tokens.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    ids = {text: number for number, (text, _) in reversed(tokens.items())}
    told = _told(folder)
    bos = folder.config.values.get("bos_token_id")
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        tokens=tuple(text for text, _ in rows),
        kinds=tuple(kind for _, kind in rows),
        merges=() if pieces else tuple(merges),
        scores=_scores(rows, merges) if pieces else (),
        eos=_eos(folder, rows),
        bos=bos if isinstance(bos, int) and bos < size and rows[bos][1] == CONTROL else None,
        unknown=ids.get("<unk>") if pieces else None,
        # What the classes of these tokenizers do where tokenizer_config.json does not say
        add_bos=bool(told.get("add_bos_token", pieces)),
        nfc=_NORMALIZERS[splitter] == {"type": "NFC"},
        tight=tight,
    )


def tokenizer(folder: Folder, splitter: str) -> Tokenizer:
    """The checkpoint's own tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(_values(folder, splitter)))


def _values(folder: Folder, splitter: str) -> dict[str, Any]:
    """tokenizer.json, or what it would say, with the added tokens as transformers has them: what tokenizer_config.json
    says of one wins, and those that it alone knows are added. Of SentencePiece's there is no other form that has the
    merges. The token of a picture is special whatever the files say: typed, it is text."""
    if folder.has(TOKENIZER) or splitter == "default" or not folder.has(VOCAB):
        values = folder.json(TOKENIZER)
    else:
        values = _from_vocab_and_merges(folder, splitter)
    added = {token["content"]: token for token in values.get("added_tokens", [])}
    for number, said in _told(folder).get("added_tokens_decoder", {}).items():
        token = _PLAIN_TOKEN | said | {"id": int(number)}
        if added.setdefault(token["content"], token)["id"] != token["id"]:
            raise _unusable(folder, f"token {number}")
        added[token["content"]] = token
    image = folder.config.values.get("image_token", "<image>")
    if image in added:
        added[image] = added[image] | {"special": True}
    return values | {"added_tokens": sorted(added.values(), key=lambda token: int(token["id"]))}


def _told(folder: Folder) -> dict[str, Any]:
    """tokenizer_config.json, which may be missing."""
    return folder.json(TOKENIZER_CONFIG) if folder.has(TOKENIZER_CONFIG) else {}


def _from_vocab_and_merges(folder: Folder, splitter: str) -> dict[str, Any]:
    merges = [line for line in folder.text(MERGES).split("\n") if line and not line.startswith("#version")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": _NORMALIZERS[splitter],
        "pre_tokenizer": _SPLITTERS[splitter],
        "post_processor": None,
        "decoder": _BYTE_LEVEL | {"use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": folder.json(VOCAB),
            "merges": merges,
        },
    }


def _is_same(found: Any, expected: Any) -> bool:
    """Whether `found` says what `expected` says. `trim_offsets` changes no token, ours may be left out."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            _is_same(found.get(key, value if key == "use_regex" else None), value)
            for key, value in expected.items()
            if key != "trim_offsets"
        )
    if isinstance(expected, list):
        return isinstance(found, list) and len(found) == len(expected) and all(map(_is_same, found, expected))
    return bool(found == expected)


def _added(folder: Folder, values: Mapping[str, Any], pieces: bool, tight: bool) -> dict[int, tuple[str, int]]:
    """The tokens that are found in a text before it is split. Those that only added_tokens.json knows are special.
    The rules of special ones do not matter: prompts hold no others than the template's markers, and text has none."""
    added: dict[int, tuple[str, int]] = {}
    for token in values.get("added_tokens", []):
        text, special = token["content"], bool(token.get("special"))
        if pieces and text in ("<unk>", "<s>", "</s>"):
            special = True  # SentencePiece's own; nobody types them
        # llama.cpp knows no such rules, but for white space that all tokens of a tight vocabulary swallow
        if not special and (token.get("single_word") or token.get("lstrip") or bool(token.get("rstrip")) is not tight):
            raise _unusable(folder, f"added token {text!r}")
        added[token["id"]] = (text, CONTROL if special else USER_DEFINED)
        if pieces and text == "<unk>":
            added[token["id"]] = (text, UNKNOWN)
    if folder.has(ADDED_TOKENS):
        for text, number in folder.json(ADDED_TOKENS).items():
            if added.setdefault(number, (text, CONTROL))[0] != text:
                raise _unusable(folder, f"token {number}")
    return added


def _name_image(folder: Folder, tokens: dict[int, tuple[str, int]]) -> None:
    """The token that stands for a picture, where the configuration has one and the tokenizer does not."""
    text, number = (folder.config.values.get(field) for field in ("image_token", "image_token_index"))
    if isinstance(text, str) and isinstance(number, int) and tokens.setdefault(number, (text, CONTROL))[0] != text:
        raise _unusable(folder, f"token {number}")


def _byte_tokens(folder: Folder, vocab: Mapping[str, int]) -> dict[int, tuple[str, int]]:
    """The tokens that stand for single bytes: all 256 must be there."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if lacking := [name for name in names if name not in vocab]:
        raise _unusable(folder, lacking[0])
    return {vocab[name]: (name, BYTE) for name in names}


def _scores(rows: list[tuple[str, int]], merges: list[str]) -> tuple[float, ...]:
    """llama.cpp joins the neighbours whose joint token has the highest score; here that is the one merged first."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return tuple(-float(ranks[text]) if kind == NORMAL and text in ranks else _LOW for text, kind in rows)


def _eos(folder: Folder, rows: list[tuple[str, int]]) -> tuple[int, ...]:
    """The token that ends an answer, then those that generation_config.json adds."""
    first = folder.config.integer("eos_token_id")
    if first >= len(rows) or rows[first][1] != CONTROL:
        raise _unusable(folder, f"eos_token_id {first}")
    told = folder.json(GENERATION).get("eos_token_id", []) if folder.has(GENERATION) else []
    more = (n for n in (told if isinstance(told, list) else [told]) if isinstance(n, int) and 0 <= n < len(rows))
    return tuple(dict.fromkeys((first, *(number for number in more if rows[number][1] == CONTROL))))


def _is_tight(folder: Folder, values: Mapping[str, Any]) -> bool:
    """Whether the template's markers swallow the white space behind them. llama.cpp has that for all or for none."""
    markers = TEMPLATES["phi3"].markers
    found = [token for token in values.get("added_tokens", []) if token["content"] in markers]
    rules = {bool(token.get("rstrip")) for token in found}
    if len(rules) > 1 or any(token.get("lstrip") or token.get("single_word") for token in found):
        raise _unusable(folder, "added_tokens")
    return rules == {True}


def _unusable(folder: Folder, detail: str) -> ModelError:
    return ModelError("checkpoint.tokenizer", path=str(folder.path), detail=detail)
