"""With the vocabularies of the real models, a bundle tokenises texts as llama.cpp's own tests expect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer

from impchat import prompts
from impchat.engines.local.llama import Model
from impchat.models import header
from impchat.models.convert import convert
from impchat.models.convert.vocabulary import BYTE, CONTROL, NORMAL, USER_DEFINED
from tests.convert import checkpoints
from tests.convert.checkpoints import Tiny
from tests.convert.real_vocabularies import NAMES, known

LAYOUTS = {"gpt-2": "newer", "qwen2": "qwen2", "phi-3": "phi3"}


def tokenizer_of(name: str, path: Path) -> Tokenizer:
    """A tokenizer.json with the vocabulary of a GGUF, in the form of the layout's models."""
    head = header.read(path)
    tokens, kinds = head["tokenizer.ggml.tokens"], head["tokenizer.ggml.token_type"]
    values = json.loads(checkpoints.train_tokenizer(LAYOUTS[name]).to_str())
    rules = {token["content"]: token for token in values["added_tokens"]}
    vocab = {text: n for n, (text, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind in (NORMAL, BYTE)}
    if name == "phi-3":
        scores = dict(zip(tokens, head["tokenizer.ggml.scores"], strict=True))
        vocab = {text: tokens.index(text) for text in ("<unk>", "<s>", "</s>")} | vocab
        pieces = {text: scores[text] for text, n in vocab.items() if kinds[n] == NORMAL}
        merges: list[Any] = checkpoints.merges(vocab, pieces)
    else:
        merges = [merge.split(" ") for merge in head["tokenizer.ggml.merges"]]
    values["model"] |= {"vocab": vocab, "merges": merges}
    added = {text: n for n, (text, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == CONTROL}
    added |= {
        text: n
        for n, (text, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == USER_DEFINED
        if text in rules
    }
    values["added_tokens"] = [
        rules.get(text, next(iter(rules.values()))) | {"content": text, "id": n} for text, n in added.items()
    ]
    tokenizer = Tokenizer.from_str(json.dumps(values))
    if name == "gpt-2":  # Phi-2 adds these two, and Imp uses the first as its eos
        tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("</s>", "<image>")])
    return tokenizer


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_with_a_real_vocabulary_has_llama_cpps_own_ids(name: str, tmp_path: Path) -> None:
    vocabulary = known(name)
    tokenizer = tokenizer_of(name, vocabulary.gguf)
    tiny = Tiny(LAYOUTS[name], heads=1, layers=1, eyes_layers=1)
    source = checkpoints.write(tmp_path / "checkpoint", tiny, tokenizer=tokenizer)
    made = convert(source, tmp_path / "model", language="f16", vision="fp32")
    model = Model(made.language)
    tokenize = prompts.in_nfc(model.tokenize) if made.text.nfc else model.tokenize
    assert len(vocabulary.texts) > 40
    assert [(text, list(tokenize(text))) for text, _ in vocabulary.texts] == vocabulary.texts
    assert [tokenizer.encode(text, add_special_tokens=False).ids for text, _ in vocabulary.texts] == [
        ids for _, ids in vocabulary.texts
    ]
    model.free()
