"""A checkpoint's own tokenizer: text to token ids, and each id to its bytes.

In: a tokenizer. Out: ids, with or without markers, and bytes, the same as llama.cpp's for a bundle made from it.
This file does not know models or GGUF files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPACE = "\u2581"  # a space in SentencePiece


class Tokens:
    """Encodes text and decodes single tokens with `tokenizer`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        serialised = tokenizer.to_str()
        self._special = tokenizer
        self._plain = type(tokenizer).from_str(serialised)
        self._plain.encode_special_tokens = True  # tokenizers' name for treating special tokens as plain text
        values = json.loads(serialised)
        piece = _sentence_piece if values["model"].get("byte_fallback") else _byte_level
        self._pieces = {number: piece(text) for text, number in values["model"]["vocab"].items()}
        for token in values["added_tokens"]:
            self._pieces[token["id"]] = b"" if token["special"] else token["content"].encode()

    def encode(self, text: str, special: bool = False, /) -> list[int]:
        """Token ids of `text`, without bos or eos; with `special`, each marker in it becomes one token."""
        ids: list[int] = (self._special if special else self._plain).encode(text, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, often only part of a character; empty for a special or unused token."""
        return self._pieces.get(token, b"")


def _sentence_piece(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace(_SPACE, " ").encode()


def _byte_level(text: str) -> bytes:
    return bytes(_LETTERS[letter] for letter in text)


def _letters() -> dict[str, int]:
    """Byte-level BPE's character for each byte: printable bytes represent themselves, the others start at U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


_LETTERS = _letters()
