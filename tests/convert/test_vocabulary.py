"""llama.cpp tokenises a text like the checkpoint's own tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks import fullsize
from impchat.engines.local.llama import Model
from impchat.models.convert import convert
from tests.convert.conftest import CORPUS, Tiny


@pytest.fixture
def model(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Iterator[Model]:
    loaded = Model(convert(make_checkpoint(Tiny(layers=1)), tmp_path / "model", language="f16").language)
    yield loaded
    loaded.free()


def texts() -> list[str]:
    """English, Chinese, code, emoji, runs of spaces and line breaks, unusual letters, every character up to U+05FF."""
    fixed = [
        *CORPUS,
        "",
        " ",
        "  ",
        "   three\t\ttabs   \n\n\n lines \r\n",
        " " * 37,
        "a" + " " * 9 + "b",
        "👩‍👩‍👧‍👦 🇨🇳 ❤️ e\u0301 ﬁ ½ ² Ⅷ",
        "你好，世界！“引号”……——《书名》１２３",
        "日本語のテキスト 한국어 русский العربية हिन्दी ไทย",
        "it's IT'S don't DON'T I'LL 'tis ''quoted'' ’curly’s",
        "x=1;y+=2**10//3%4 <|endoftext|> [0.12, 0.34]",
        "\x00\x01\x1f\x7f\x80\x9f\xa0\u200b\u200d\u2028\u3000\ufeff\ufffd",
        "1234567890 12 3 4567 ١٢٣ १२३",
    ]
    draw = random.Random(7)
    letters = (
        [chr(c) for c in range(1, 0x600)] + list("你好世界图里有几个圆🙂👍中文") + [" ", "  ", "\n", "'s", "\t"] * 40
    )
    mixed = ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(1000)]
    return fixed + mixed


def test_every_text_has_the_same_token_ids(model: Model, tokenizer: Tokenizer) -> None:
    wrong = [text for text in texts() if model.tokenize(text) != tokenizer.encode(text).ids]
    assert not wrong


def test_the_pieces_of_a_text_join_to_it(model: Model) -> None:
    for text in texts():
        assert b"".join(model.piece(token) for token in model.tokenize(text)) == text.encode()


def test_markers_become_tokens_only_if_requested(model: Model, tokenizer: Tokenizer) -> None:
    text = "yes</s>USER: <image>\nno"
    assert model.tokenize(text, True) == tokenizer.encode(text).ids
    eos, image = tokenizer.token_to_id("</s>"), tokenizer.token_to_id("<image>")
    assert not {eos, image} & {*model.tokenize(text)}


def test_answers_of_the_full_size_random_model_give_the_same_token_ids_when_sent_back_as_text() -> None:
    words = Tokenizer.from_str(json.dumps(fullsize.tokenizer()))
    draw = random.Random(7)
    for _ in range(100):
        ids = draw.choices(range(fullsize.first_word(), words.get_vocab_size(with_added_tokens=False)), k=50)
        assert words.encode(words.decode(ids)).ids == ids
