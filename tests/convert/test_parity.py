"""A bundle gives the same answers as transformers with the source checkpoint."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impchat import images, prompts
from impchat.bundle import Bundle
from impchat.engines.local.engine import LocalEngine
from impchat.engines.local.llama import Context, Model, Outcome, Row, binding
from impchat.engines.local.vision import OnnxVision
from impchat.messages import Finished, Picture, Prompt, Sampling, Turn
from impchat.models.convert import convert
from impchat.models.convert.reference import Reference
from tests.convert.conftest import Tiny

CLOSE = 0.05  # if the two best logits differ by less, either token is right
SIZES = [Tiny(head_size=80, heads=2), Tiny(head_size=80, heads=2, layout="older"), Tiny(), Tiny(layout="older")]


def picture(seed: int, width: int = 90, height: int = 60) -> Picture:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    return Picture(hashlib.sha256(data.getvalue()).hexdigest(), data.getvalue())


def pixels(bundle: Bundle, shown: Picture) -> np.ndarray:
    rule = bundle.image
    return images.model_input(shown.data, rule.size, rule.aspect, rule.mean, rule.std)


def cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The cosine of each patch's two embeddings."""
    return (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)


def engine_tokens(bundle: Bundle, prompt: Prompt, count: int) -> tuple[int, ...]:
    engine = LocalEngine(bundle, slots=1, threads=1)
    try:
        last = list(engine.start(prompt, Sampling(temperature=0, max_tokens=count)).events())[-1]
    finally:
        engine.close()
    assert isinstance(last, Finished), last
    return last.tokens


def reference_pieces(bundle: Bundle, reference: Reference, prompt: Prompt) -> list[Sequence[int] | np.ndarray]:
    def tokenize(text: str, special: bool = False, /) -> list[int]:
        return reference.tokenizer.encode(text, add_special_tokens=False).ids

    pieces = prompts.render(prompt, bundle.template, tokenize, bundle.text.eos[0])
    return [reference.embed(pixels(bundle, p))[0] if isinstance(p, Picture) else p.ids for p in pieces]


@pytest.mark.parametrize("tiny", SIZES, ids=lambda t: f"{t.layout}-{t.head_size}")
def test_a_16_bit_bundle_answers_as_transformers_does(
    make_checkpoint: Callable[..., Path], tmp_path: Path, tiny: Tiny
) -> None:
    checkpoint = make_checkpoint(tiny)
    bundle = convert(checkpoint, tmp_path / "model", language="f16", vision="fp32")
    reference = Reference(checkpoint)
    shown, other = picture(1), picture(2)
    compared = 0
    distinct: set[int] = set()
    for prompt in (
        Prompt("A chat.", (Turn("user", "What colour is the circle?", (shown,)),)),
        Prompt("", (Turn("user", "图里有几个圆？"),)),
        Prompt(
            "A chat.",
            (
                Turn("user", "What is this?", (shown, other)),
                Turn("assistant", "A circle.", tokens=(40, 41, 300, 301)),
                Turn("user", "it's 12 by  24,\n\nisn't it? 🙂"),
            ),
        ),
    ):
        ours = engine_tokens(bundle, prompt, 48)
        theirs = reference.greedy(reference_pieces(bundle, reference, prompt), 48, eos=bundle.text.eos)
        sure = next((i for i, margin in enumerate(theirs.margins) if margin < CLOSE), len(theirs.tokens))
        assert ours[:sure] == theirs.tokens[:sure]
        compared += sure
        distinct |= set(theirs.tokens[:sure])
    assert compared > 60 and len(distinct) > 8, "the random model's answer is too short to compare"


@pytest.mark.parametrize("tiny", [Tiny(), Tiny(layout="older", eyes_hidden=144, eyes_heads=2, image_size=84)])
def test_the_fp32_vision_encoder_matches_transformers(
    make_checkpoint: Callable[..., Path], tmp_path: Path, tiny: Tiny
) -> None:
    checkpoint = make_checkpoint(tiny)
    bundle = convert(checkpoint, tmp_path / "model", language="f16", vision="fp32")
    reference = Reference(checkpoint)
    eyes = OnnxVision(bundle, threads=1)
    for seed in range(3):
        ours = eyes.encode(picture(seed))
        theirs = reference.embed(pixels(bundle, picture(seed)))[0]
        assert ours.shape == (bundle.image.tokens, tiny.hidden)
        assert cosines(ours, theirs).min() >= 0.99999
        assert np.abs(ours - theirs).max() < 1e-3
    assert cosines(eyes.encode(picture(0)), eyes.encode(picture(1))).min() < 0.9, "all pictures have similar embeddings"


def next_logits(bundle: Bundle, ids: Sequence[int]) -> np.ndarray:
    """llama.cpp's logits after a prompt of token ids."""
    model = Model(bundle.language)
    context = Context(model, 1, 256, 64, 1)
    rows = [Row(0, at, token, logits=at == len(ids) - 1) for at, token in enumerate(ids)]
    assert context.decode(rows) is Outcome.DONE
    values = binding().llama_get_logits_ith(context.handle, len(ids) - 1)
    logits = np.ctypeslib.as_array(values, (model.vocabulary,)).copy()
    context.free()
    model.free()
    return logits


@pytest.mark.parametrize(("language", "least"), [("f16", 0.99999), ("q8_0", 0.999), ("q4", 0.95)])
def test_fewer_bits_lose_little_of_the_language(
    make_checkpoint: Callable[..., Path], tmp_path: Path, language: str, least: float
) -> None:
    checkpoint = make_checkpoint(Tiny(heads=8))
    bundle = convert(checkpoint, tmp_path / "model", language=language, vision="int8")
    reference = Reference(checkpoint)
    ids = reference.tokenizer.encode("A chat between a curious user and 图里有几个圆").ids
    ours, theirs = next_logits(bundle, ids), reference.logits([ids])[-1]
    assert cosines(ours, theirs) >= least
