"""Verification of a bundle by measurement: a bundle that matches its checkpoint passes, wrong parameters do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from impchat import bundle as bundles
from impchat import paths, prompts, settings
from impchat.bundle import Bundle
from impchat.engines.local.llama import Model
from impchat.errors import ModelError
from impchat.messages import Prompt, Turn
from impchat.models import measured
from impchat.models.convert import Conversion, checkpoint, convert, layouts, verify, vision
from impchat.models.convert.measure import sample
from impchat.models.convert.pairs import PAIRS
from impchat.models.convert.reference import Reference
from tests.convert.conftest import Tiny
from tests.convert.test_parity import pixels

Make = Callable[..., Path]


@pytest.fixture
def demo(tmp_path: Path) -> Bundle:
    """A copy of the bundled demo, to be modified."""
    shutil.copytree(paths.demo_bundle(), tmp_path / "demo")
    return bundles.load(tmp_path / "demo")


def names(figures: str) -> set[str]:
    """The names of the figures that failed."""
    return {part.split()[0] for part in figures.split(", ")}


def refused(bundle: Bundle, source: Path) -> set[str]:
    with pytest.raises(ModelError) as failure:
        verify.verify(bundle, source)
    assert failure.value.code == "verify.failed"
    return names(failure.value.values["figures"])


def test_the_demo_gives_right_answers_a_high_likelihood_and_wrong_ones_a_low_one() -> None:
    figures = verify.verify(bundles.load(paths.demo_bundle()))
    assert figures.trained
    assert figures.nll is not None and figures.end_nll is not None and figures.contrast is not None
    assert figures.nll < settings.VERIFY_DEMO_ANSWERS[0] and figures.end_nll < 0.1 and figures.contrast > 4


def wrong_picture(demo: Bundle, **rule: Any) -> Bundle:
    return replace(demo, image=replace(demo.image, **rule))


def wrong_key(demo: Any, key: str, value: float) -> Any:
    """The same GGUF with another value in its metadata."""
    field = gguf.GGUFReader(demo.language, "r+").fields[f"phi2.{key}"]
    field.parts[field.data[0]][0] = value
    return demo


def wrong_graph(demo: Bundle, change: Callable[[onnx.GraphProto], None]) -> Bundle:
    model = onnx.load(str(demo.vision))
    change(model.graph)
    onnx.save(model, str(demo.vision))
    return demo


def turn_a_matrix_of_the_projector(graph: onnx.GraphProto) -> None:
    """Transpose the matrix of its second layer."""
    weight, scale = (next(i for i in graph.initializer if i.name == f"projector.2.{x}") for x in ("weight", "scale"))
    packed, scales = numpy_helper.to_array(weight), numpy_helper.to_array(scale)
    matrix = ((packed.astype(np.float32) - 128) * scales[:, :, None]).reshape(len(packed), -1)
    turned = vision.pack(np.ascontiguousarray(matrix[:, : len(packed)].T), packed.shape[2])
    for tensor, values in zip((weight, scale), turned, strict=True):
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def swap_rows_and_columns(graph: onnx.GraphProto) -> None:
    """Transpose the patches, as if the picture were read column by column."""
    place = next(i for i in graph.initializer if i.name == "positions")
    values = numpy_helper.to_array(place)
    side = int(len(values) ** 0.5)
    turned = values.reshape(side, side, -1).swapaxes(0, 1).reshape(values.shape)
    place.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(turned), "positions"))


@pytest.mark.parametrize(
    ("plant", "seen"),
    [
        (lambda demo: wrong_picture(demo, aspect="pad"), {"nll"}),
        (lambda demo: wrong_picture(demo, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), {"nll"}),
        (lambda demo: replace(demo, text=replace(demo.text, eos=(0,))), {"end_nll"}),
        (lambda demo: replace(demo, template="qwen"), {"nll"}),
        (lambda demo: wrong_key(demo, "rope.dimension_count", 32), {"nll"}),
        (lambda demo: wrong_graph(demo, turn_a_matrix_of_the_projector), {"nll"}),
        (lambda demo: wrong_graph(demo, swap_rows_and_columns), {"nll"}),
    ],
    ids=["aspect", "mean", "eos", "template", "rope", "projector", "places"],
)
def test_a_wrong_parameter_is_measured_with_trained_weights(
    demo: Bundle, plant: Callable[[Bundle], Bundle], seen: set[str]
) -> None:
    planted = plant(demo)
    assert seen <= names(verify.doubts(planted, verify.verify(planted)))


def test_the_figures_of_a_conversion_are_in_its_manifest(make_checkpoint: Make, tmp_path: Path) -> None:
    source = make_checkpoint(Tiny())
    made = convert(source, tmp_path / "model", language="f16", vision="fp32", figures={"steps": 3})
    assert made.figures["steps"] == 3
    figures = verify.Measurements(**made.figures["verify"])
    assert not figures.trained
    assert figures.nll is None  # there are no right answers for random weights
    assert figures.cosine is not None and figures.cosine > 0.9999
    assert figures.agreement == 1.0 and figures.sure is not None and figures.sure > 50
    assert verify.verify(made, source) == figures


@pytest.mark.parametrize("language", ["q8_0", "q4_k_m", "q4_0"])
def test_fewer_bits_pass(make_checkpoint: Make, tmp_path: Path, language: str) -> None:
    made = convert(make_checkpoint(Tiny(head_size=80, heads=2)), tmp_path / "model", language=language)
    assert made.files["vision"].type == "int8"


def test_a_bundle_of_other_weights_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    made = convert(make_checkpoint(Tiny(seed=1)), tmp_path / "model", language="q4_0", vision="fp32")
    assert refused(made, make_checkpoint(Tiny())) == {"cosine", "cosine_least", "agreement"}


def test_a_file_with_a_wrong_parameter_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    source = make_checkpoint(Tiny())
    made = convert(source, tmp_path / "model", language="f16", vision="fp32")
    assert refused(wrong_key(made, "rope.dimension_count", 32), source) == {"agreement"}


def test_a_model_with_a_low_likelihood_of_right_answers_is_kept_and_marked(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    made = convert(make_checkpoint(Tiny()), tmp_path / "model", id="imp-v1.5-3b", language="f16")
    assert names(made.unverified) >= {"nll", "end_nll"}
    assert bundles.load(tmp_path / "model") == made
    assert next(measured.warnings(made))[0] == "measured.unverified"


def test_files_that_differ_from_their_checkpoint_are_refused_and_the_work_files_are_kept(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    """This is how a bug of the conversion would show: in a pull, the weight files are deleted by then."""
    source = make_checkpoint(Tiny())
    conversion = Conversion(source, tmp_path / "model", language="f16", vision="fp32")
    conversion.take(source / checkpoint.WEIGHTS)
    wrong_key(bundles_work(tmp_path / "model"), "rope.dimension_count", 32)
    (source / checkpoint.WEIGHTS).rename(source / "elsewhere")
    with pytest.raises(ModelError) as failure:
        conversion.finish()
    assert failure.value.code == "verify.failed" and "report it" in str(failure.value)
    assert not (tmp_path / "model").exists()
    wrong_key(bundles_work(tmp_path / "model"), "rope.dimension_count", 16)  # as an update of ImpChat might
    (source / "elsewhere").rename(source / checkpoint.WEIGHTS)
    again = Conversion(source, tmp_path / "model", language="f16", vision="fp32")
    assert not again.files, "nothing is downloaded or converted again"
    assert not again.finish().unverified


def bundles_work(target: Path) -> Any:
    """The work files of a conversion, for `wrong_key`."""
    return SimpleNamespace(language=bundles.work_folder(target) / "language.f16")


def test_a_wide_picture_is_scored_both_ways_and_the_worse_one_is_named(demo: Bundle) -> None:
    right = verify.verify(demo).aspects
    assert right is not None and right.used == "square" and {*right.nats} == {"square", "pad"}
    assert right.nats["square"] < right.nats["pad"] - settings.VERIFY_CLEARLY
    assert not [*measured.warnings(verify.measured(demo))]
    warnings = dict(measured.warnings(verify.measured(wrong_picture(demo, aspect="pad"))))
    assert (warnings["measured.aspects_lose"]["best"], warnings["measured.aspects_lose"]["used"]) == ("square", "pad")


def test_a_phi3_is_scored_with_each_form_of_its_prompts(make_checkpoint: Make, tmp_path: Path) -> None:
    source = make_checkpoint(Tiny("phi3"))
    made = convert(source, tmp_path / "model", id="imp-v1.5-4b", language="f16", vision="fp32")
    choice = made.figures["verify"]["templates"]
    assert choice["used"] == "phi3-tight, system text" and len(choice["nats"]) == 4
    assert choice["used"] in dict(measured.lines(made))["measured.templates"]["used"]
    reference, language = Reference(source), Model(made.language)
    for way, nats in choice["nats"].items():
        template, system = way.split(", ")
        said = settings.SYSTEM if system == "system text" else ""
        costs = []
        for pair in (pair for pair in PAIRS if pair.picture == "shapes.png"):
            picture = sample(pair.picture)
            asked = Prompt(said, (Turn("user", pair.question, (picture,)),))
            rendered = prompts.render(asked, template, language.tokenize, made.text.eos[0], language.bos)
            answer = language.tokenize(pair.answer)
            seen = reference.embed(pixels(made, picture))[0]
            pieces = [[*p.ids] if isinstance(p, prompts.Tokens) else seen for p in rendered]
            logits = reference.logits([*pieces, answer]).astype(np.float64)[-len(answer) - 1 : -1]
            chances = np.exp(logits - logits.max(-1, keepdims=True))
            chances /= chances.sum(-1, keepdims=True)
            costs.append(-np.log(chances[range(len(answer)), answer]).mean())
        assert abs(np.mean(costs) - nats) < 0.02
    language.free()


def test_a_choice_that_is_clearly_worse_is_named(demo: Bundle) -> None:
    def warned(**nats: float) -> list[str]:
        choice = {"used": "phi3", "nats": nats}
        return [key for key, _ in measured.warnings(replace(demo, figures={"verify": {"templates": choice}}))]

    assert warned(phi3=1.0, other=1.0 - settings.VERIFY_CLEARLY / 2) == []
    assert warned(phi3=1.0, other=0.9 - settings.VERIFY_CLEARLY) == ["measured.templates_lose"]


def plant_outliers(tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Make some channels of the vision encoder a thousand times larger, with weights that compensate: the same
    function, but not in 8 bits."""
    for name in [name for name in tensors if "vision_model.encoder" in name and "layer_norm2" in name]:
        tensors[name][::8] *= 1024
    for name in [name for name in tensors if "vision_model.encoder" in name and name.endswith("mlp.fc1.weight")]:
        tensors[name][:, ::8] /= 1024


def test_a_vision_encoder_unsuited_to_8_bits_gets_16(make_checkpoint: Make, tmp_path: Path) -> None:
    made = convert(make_checkpoint(Tiny(), plant_outliers), tmp_path / "model", language="f16", vision="int8")
    assert made.files["vision"].type == "fp16"
    assert made.figures["verify"]["cosine"] > 0.999


def test_the_required_similarity_of_8_bits_can_be_set(make_checkpoint: Make, tmp_path: Path) -> None:
    weights = layouts.recognise(checkpoint.Checkpoint(make_checkpoint(Tiny())))
    kinds = [verify.write_eyes(weights, tmp_path / "eyes.onnx", "int8", least=least) for least in (0.9, 1.1)]
    assert kinds == ["int8", "fp16"]
    assert verify.write_eyes(weights, tmp_path / "eyes.onnx", "fp32", least=1.1) == "fp32"
