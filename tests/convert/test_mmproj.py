"""The mmproj of an Imp: llama.cpp's own loader accepts it with our GGUF, and gives the embeddings of our vision
encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from impchat import images, prompts, settings
from impchat.bundle import Bundle
from impchat.cli.main import main
from impchat.engines.local.llama import Model
from impchat.engines.local.mtmd import Projector
from impchat.engines.local.vision import OnnxVision
from impchat.errors import ModelError
from impchat.messages import Prompt, Turn
from impchat.models import header, turns
from impchat.models.add import add
from impchat.models.convert import convert, mmproj, phi2, phi3, qwen2
from impchat.models.convert.parts import Family
from impchat.models.convert.reference import Reference
from tests.convert.conftest import Tiny
from tests.convert.test_parity import cosines, picture, pixels

# The third has a feed-forward layer as wide as the tower, which llama.cpp would take for one of an old converter.
TOWERS = [Tiny(), Tiny(layout="older", eyes_layers=2, image_size=84), Tiny(eyes_mlp=96)]


@dataclass(frozen=True)
class Pair:
    """A checkpoint, its bundle with float32 vision, and its mmproj in llama.cpp."""

    checkpoint: Path
    bundle: Bundle
    mmproj: Path
    projector: Projector
    model: Model


@pytest.fixture(params=TOWERS, ids=["newer", "older", "square"])
def pair(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path], tmp_path: Path) -> Iterator[Pair]:
    checkpoint = make_checkpoint(request.param)
    bundle = convert(checkpoint, tmp_path / "model", language="f16", vision="fp32")
    file = tmp_path / "out" / "mmproj.gguf"
    mmproj.export(checkpoint, file)
    model = Model(bundle.language)
    projector = Projector(file, model, 1)
    yield Pair(checkpoint, bundle, file, projector, model)
    projector.free()
    model.free()


def test_llama_cpp_gives_the_embeddings_of_our_vision_encoder(pair: Pair) -> None:
    """The differences come from float16 in its layers (cosine above 0.99998 here, 0.02 of values up to 10) and from
    the tanh form of GELU in its projector, which alone accounts for 0.001 of these."""
    size, eyes = pair.bundle.image.size, OnnxVision(pair.bundle, 1)
    reference = Reference(pair.checkpoint)
    first, _, last = reference.projector
    for seed in range(3):
        shown = picture(seed, size, size)  # of the encoder's size, because llama.cpp resizes differently
        ours = eyes.encode(shown)
        theirs = pair.projector.see(np.asarray(images.decode(shown.data)))
        assert (theirs.before, theirs.after) == ((), ())
        assert theirs.embeddings.shape == ours.shape == (pair.bundle.image.tokens, pair.model.hidden)
        assert cosines(ours, theirs.embeddings).min() > 0.99998
        assert np.abs(ours - theirs.embeddings).max() < 0.03
        reference.projector = torch.nn.Sequential(first, torch.nn.GELU(approximate="tanh"), last)
        tanh = reference.embed(pixels(pair.bundle, shown))[0]
        assert np.abs(ours - tanh).max() < 0.002


@pytest.mark.parametrize("pair", TOWERS[:1], indirect=True, ids=["newer"])
def test_the_pair_can_be_added_and_gets_the_same_prompt(pair: Pair, tmp_path: Path) -> None:
    again = add(pair.bundle.language, pair.mmproj, tmp_path / "again", id="again")
    assert again.family == "phi2" and again.image.tokens == pair.bundle.image.tokens
    assert again.text.eos[0] == pair.bundle.text.eos[0] and not again.text.add_bos
    said = (Turn("user", "What is this?", (picture(1),)), Turn("assistant", "A circle."), Turn("user", "Is it?"))
    written = [
        prompts.render(Prompt(settings.SYSTEM, said), b.writing, pair.model.tokenize, b.text.eos[0])
        for b in (pair.bundle, again)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("family", [phi2.FAMILY, qwen2.FAMILY, phi3.FAMILY], ids=lambda family: family.name)
def test_the_chat_templates_in_our_gguf_files_give_our_prompts(family: Family) -> None:
    known = prompts.TEMPLATES[family.template]
    end = {"phi2": "</s>", "qwen": "<|im_end|>", "phi3": "<|end|>"}[family.template]
    found = turns.derive(family.chat_template, bos="", eos=end, markers={end, *known.markers}, ends={end})
    assert found.end == end and found.template.ends
    for strings in ("system", "first", "later", "answer", "lead", "picture_end"):
        assert getattr(found.template, strings) == getattr(known, strings), strings
    assert settings.SYSTEM in str(found.template.alone)  # stock programs need not send it


def test_an_existing_file_is_not_overwritten(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "mmproj.gguf"
    file.write_bytes(b"mine")
    with pytest.raises(ModelError) as caught:
        mmproj.export(make_checkpoint(Tiny()), file)
    assert caught.value.code == "model.target_occupied" and file.read_bytes() == b"mine"


def test_the_command_writes_it_and_explains_its_use(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, checkpoint = tmp_path / "mmproj.gguf", make_checkpoint(Tiny())
    assert main(["convert", str(checkpoint), str(file), "--format", "mmproj"]) == 0
    assert header.read(file)["general.architecture"] == "clip"
    assert "--mmproj" in capsys.readouterr().err
    assert main(["convert", str(checkpoint), str(tmp_path / "x"), "--format", "pdf"]) == 2
    assert "bundle, mmproj" in capsys.readouterr().err
