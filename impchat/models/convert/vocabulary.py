"""A checkpoint's tokenizer in llama.cpp's form: a list of tokens, their types, and the merges or scores.

In: a checkpoint's folder with a tokenizer.json, or with a vocab.json and merges.txt: byte-level BPE as in Phi-2 and
Qwen, or SentencePiece's BPE with byte fallback as in Phi-3. Out: a `Vocabulary`. A tokenizer that llama.cpp would not
reproduce exactly is refused.
This file does not know models or GGUF files.
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

# llama.cpp's token types
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_LOW = -1e6  # a score lower than that of any merge
_SPACE = "\u2581"  # a space in SentencePiece
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
# transformers' defaults for an added token that is given only by its text
_PLAIN_TOKEN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
# How the pre-tokenizers of this name in llama.cpp split and normalise a text
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
    tokens: tuple[str, ...]  # by id; byte-level ones in byte-level characters, added ones as plain text
    kinds: tuple[int, ...]
    merges: tuple[str, ...]  # "left right", the strongest first; SentencePiece: none
    scores: tuple[float, ...]  # SentencePiece: highest for what is merged first; byte-level BPE: none
    eos: tuple[int, ...]  # the first one ends an answer, others may too
    bos: int | None
    unknown: int | None
    add_bos: bool  # a prompt begins with bos
    nfc: bool  # text is normalised to Unicode NFC first; llama.cpp does not do that
    tight: bool  # markers strip the white space after them


def read(folder: Folder, size: int, splitter: str) -> Vocabulary:
    """The tokenizer in `folder`, padded with unused tokens to `size`, the rows of the embedding. `splitter`:
    llama.cpp's name of the pre-tokenizer.

    Raises ModelError "checkpoint.tokenizer" with the reason why llama.cpp cannot reproduce it."""
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
    config = _tokenizer_config(folder)
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
        # the defaults of these tokenizers' classes, if tokenizer_config.json does not set them
        add_bos=bool(config.get("add_bos_token", pieces)),
        nfc=_NORMALIZERS[splitter] == {"type": "NFC"},
        tight=tight,
    )


def tokenizer(folder: Folder, splitter: str) -> Tokenizer:
    """The checkpoint's own tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(_values(folder, splitter)))


def _values(folder: Folder, splitter: str) -> dict[str, Any]:
    """tokenizer.json, or its equivalent, with the added tokens as in transformers: tokenizer_config.json overrides and
    extends them. For SentencePiece no other form contains the merges. The picture's token is always special, so that it
    is plain text when typed."""
    if folder.has(TOKENIZER) or splitter == "default" or not folder.has(VOCAB):
        values = folder.json(TOKENIZER)
    else:
        values = _from_vocab_and_merges(folder, splitter)
    added = {token["content"]: token for token in values.get("added_tokens", [])}
    for number, said in _tokenizer_config(folder).get("added_tokens_decoder", {}).items():
        token = _PLAIN_TOKEN | said | {"id": int(number)}
        if added.setdefault(token["content"], token)["id"] != token["id"]:
            raise _unusable(folder, f"token {number}")
        added[token["content"]] = token
    image = folder.config.values.get("image_token", "<image>")
    if image in added:
        added[image] = added[image] | {"special": True}
    return values | {"added_tokens": sorted(added.values(), key=lambda token: int(token["id"]))}


def _tokenizer_config(folder: Folder) -> dict[str, Any]:
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
    """Whether `found` equals `expected`; `trim_offsets` changes no token and may be missing."""
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
    """The tokens that are found in a text before it is split. Those only in added_tokens.json are special. The rules of
    special tokens do not matter: prompts contain only the template's markers, and text contains none."""
    added: dict[int, tuple[str, int]] = {}
    for token in values.get("added_tokens", []):
        text, special = token["content"], bool(token.get("special"))
        if pieces and text in ("<unk>", "<s>", "</s>"):
            special = True  # SentencePiece's own, never typed
        # llama.cpp has no such rules, except the white space that all tokens of a tight vocabulary strip
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
    """Add the token for a picture if the configuration has one and the tokenizer does not."""
    text, number = (folder.config.values.get(field) for field in ("image_token", "image_token_index"))
    if isinstance(text, str) and isinstance(number, int) and tokens.setdefault(number, (text, CONTROL))[0] != text:
        raise _unusable(folder, f"token {number}")


def _byte_tokens(folder: Folder, vocab: Mapping[str, int]) -> dict[int, tuple[str, int]]:
    """The tokens for single bytes: all 256 must exist."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if lacking := [name for name in names if name not in vocab]:
        raise _unusable(folder, lacking[0])
    return {vocab[name]: (name, BYTE) for name in names}


def _scores(rows: list[tuple[str, int]], merges: list[str]) -> tuple[float, ...]:
    """Scores for llama.cpp, which joins the neighbours whose joint token scores highest: here the one merged first."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), rank)
    return tuple(-float(ranks[text]) if kind == NORMAL and text in ranks else _LOW for text, kind in rows)


def _eos(folder: Folder, rows: list[tuple[str, int]]) -> tuple[int, ...]:
    """The token that ends an answer, then those of generation_config.json."""
    first = folder.config.integer("eos_token_id")
    if first >= len(rows) or rows[first][1] != CONTROL:
        raise _unusable(folder, f"eos_token_id {first}")
    ids = folder.json(GENERATION).get("eos_token_id", []) if folder.has(GENERATION) else []
    more = (n for n in (ids if isinstance(ids, list) else [ids]) if isinstance(n, int) and 0 <= n < len(rows))
    return tuple(dict.fromkeys((first, *(number for number in more if rows[number][1] == CONTROL))))


def _is_tight(folder: Folder, values: Mapping[str, Any]) -> bool:
    """Whether the template's markers strip the white space after them. llama.cpp strips it after all or none."""
    markers = TEMPLATES["phi3"].markers
    found = [token for token in values.get("added_tokens", []) if token["content"] in markers]
    rules = {bool(token.get("rstrip")) for token in found}
    if len(rules) > 1 or any(token.get("lstrip") or token.get("single_word") for token in found):
        raise _unusable(folder, "added_tokens")
    return rules == {True}


def _unusable(folder: Folder, detail: str) -> ModelError:
    return ModelError("checkpoint.tokenizer", path=str(folder.path), detail=detail)
