"""Which checkpoints can be converted, and the errors for others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from impchat import bundle
from impchat.errors import ModelError, SettingsError
from impchat.models.convert import Conversion, checkpoint, convert, describe, layouts, vision
from impchat.models.convert.checkpoint import Checkpoint
from tests.convert import checkpoints
from tests.convert.conftest import Tiny

Make = Callable[..., Path]
EYES = "model.vision_tower.vision_tower.vision_model."


def refusal(path: Path, target: Path) -> ModelError:
    """The error that converting `path` raises; nothing may be left at the target."""
    before = {*target.parent.iterdir()}
    with pytest.raises(ModelError) as caught:
        convert(path, target, language="f16", vision="fp32")
    assert {*target.parent.iterdir()} == before
    return caught.value


@pytest.mark.parametrize(
    "name",
    ["lm_head.bias", "model.layers.1.self_attn.v_proj.weight", f"{EYES}embeddings.patch_embedding.bias"],
)
def test_a_missing_tensor_is_named(make_checkpoint: Make, tmp_path: Path, name: str) -> None:
    error = refusal(make_checkpoint(Tiny(), lambda tensors, config: tensors.pop(name)), tmp_path / "model")
    assert error.code == "checkpoint.tensors_missing"
    assert name in str(error) and name in error.sentence("zh")


@pytest.mark.parametrize(
    "name",
    ["model.layers.3.input_layernorm.weight", f"{EYES}encoder.layers.3.mlp.fc1.weight", "model.mm_projector.4.bias"],
)
def test_an_unexpected_tensor_is_named(make_checkpoint: Make, tmp_path: Path, name: str) -> None:
    def add(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors[name] = np.zeros(3, np.float32)

    error = refusal(make_checkpoint(Tiny(), add), tmp_path / "model")
    assert error.code == "checkpoint.tensors_unknown"
    assert name in str(error)


@pytest.mark.parametrize(
    ("tiny", "name"),
    [
        (Tiny(), "model.layers.0.mlp.fc1.weight"),
        (Tiny(), "model.mm_projector.0.weight"),
        (Tiny(), f"{EYES}embeddings.position_embedding.weight"),
        (Tiny(layout="older"), "transformer.h.2.mixer.Wqkv.weight"),
        (Tiny(layout="older"), "lm_head.ln.bias"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.layout,
)
def test_a_tensor_of_the_wrong_shape_is_named_with_both_shapes(
    make_checkpoint: Make, tmp_path: Path, tiny: Tiny, name: str
) -> None:
    def cut(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors[name] = tensors[name][:-1]

    error = refusal(make_checkpoint(tiny, cut), tmp_path / "model")
    assert error.code == "checkpoint.tensor_shape"
    assert error.values["name"] == name
    assert error.values["found"][0] == error.values["expected"][0] - 1


def test_the_unused_norm_of_imps_training_after_the_tower_is_optional(make_checkpoint: Make, tmp_path: Path) -> None:
    def add(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        for kind in ("weight", "bias"):
            tensors[f"{EYES}post_layernorm.{kind}"] = np.ones(96, np.float32)

    plain = convert(make_checkpoint(Tiny()), tmp_path / "plain", id="imp", language="f16")
    added = convert(make_checkpoint(Tiny(), add), tmp_path / "added", id="imp", language="f16")
    assert added.files == plain.files


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", "wide"),
        ("num_hidden_layers", "four"),
        ("num_attention_heads", 7),
        ("hidden_act", "silu"),
        ("num_key_value_heads", 1),
        ("mm_projector_type", "linear"),
        ("mm_vision_select_layer", 3),
        ("image_aspect_ratio", "anyres"),
    ],
)
def test_an_unsupported_configuration_is_named(make_checkpoint: Make, tmp_path: Path, field: str, value: Any) -> None:
    error = refusal(make_checkpoint(Tiny(), lambda tensors, config: config.update({field: value})), tmp_path / "model")
    assert error.code == "checkpoint.config"
    assert error.values["field"] == field


def test_another_models_tensors_are_not_an_imp(make_checkpoint: Make, tmp_path: Path) -> None:
    def other(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        tensors.clear()
        tensors["encoder.block.0.weight"] = np.zeros((2, 2), np.float32)

    error = refusal(make_checkpoint(Tiny(), other), tmp_path / "model")
    assert error.code == "checkpoint.layout"
    assert "encoder.block.0.weight" in str(error)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(make_checkpoint: Make, tmp_path: Path, name: str) -> None:
    path = make_checkpoint(Tiny())
    (path / name).write_text("{ this is no JSON and no safetensors")
    damaged = refusal(path, tmp_path / "model")
    (path / name).unlink()
    missing = refusal(path, tmp_path / "model")
    assert (damaged.code, damaged.values["file"]) == ("checkpoint.broken", name)
    assert (missing.code, missing.values["file"]) == ("checkpoint.missing", name)


def test_values_of_other_types_are_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    path = make_checkpoint(Tiny())
    tensors = load_file(path / checkpoint.WEIGHTS)
    tensors["lm_head.bias"] = tensors["lm_head.bias"].astype(np.float64)
    save_file(tensors, path / checkpoint.WEIGHTS)
    error = refusal(path, tmp_path / "model")
    assert error.code == "checkpoint.dtype"
    assert error.values["name"] == "lm_head.bias"


def test_a_tokenizer_that_llama_cpp_does_not_support_is_refused(make_checkpoint: Make, tmp_path: Path) -> None:
    path = make_checkpoint(Tiny())
    whole = json.loads((path / "tokenizer.json").read_text())
    for change in (
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": whole["pre_tokenizer"] | {"add_prefix_space": True}},
        {"normalizer": {"type": "NFC"}},
        {"model": {"type": "WordPiece", "vocab": {}}},
    ):
        (path / "tokenizer.json").write_text(json.dumps(whole | change))
        assert refusal(path, tmp_path / "model").code == "checkpoint.tokenizer"


def test_an_embedding_with_fewer_rows_than_tokens_is_refused(
    make_checkpoint: Make, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    def shrink(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        config["vocab_size"] = tokenizer.get_vocab_size() - 1
        for name in ("model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"):
            tensors[name] = tensors[name][: config["vocab_size"]]

    assert refusal(make_checkpoint(Tiny(), shrink), tmp_path / "model").code == "checkpoint.tokenizer"


def test_an_unknown_type_is_refused_with_the_known_ones(make_checkpoint: Make, tmp_path: Path) -> None:
    path = make_checkpoint(Tiny())
    for wrong in ({"language": "q2"}, {"vision": "fp8"}):
        with pytest.raises(SettingsError) as caught:
            convert(path, tmp_path / "model", **wrong)
        assert caught.value.code == "convert.type"
    assert "fp32" in str(caught.value)


def test_shards_form_one_checkpoint(make_checkpoint: Make, tmp_path: Path) -> None:
    whole = make_checkpoint(Tiny())
    one = convert(whole, tmp_path / "one", id="imp", language="f16")
    tensors = load_file(whole / checkpoint.WEIGHTS)
    where = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in {*where.values()}:
        save_file({name: tensors[name] for name in tensors if where[name] == file}, whole / file)
    (whole / checkpoint.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (whole / checkpoint.WEIGHTS).unlink()
    many = convert(whole, tmp_path / "many", id="imp", language="f16")
    assert many.files == one.files
    (whole / "model-00002-of-00003.safetensors").unlink()
    assert refusal(whole, tmp_path / "model").values["file"] == "model-00002-of-00003.safetensors"


def test_the_same_weights_in_the_older_and_the_newer_layout_give_equal_files(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    older, newer = (
        convert(make_checkpoint(Tiny(layout=layout, head_size=80)), tmp_path / layout, id="imp", language="f16")
        for layout in ("older", "newer")
    )
    assert older.files == newer.files
    assert older.revision != newer.revision


def test_the_older_layouts_vision_configuration_is_in_a_folder_next_to_the_weights(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    path = make_checkpoint(Tiny(layout="older"))
    described = layouts.recognise(Checkpoint(path)).eyes
    config = json.loads((path / "config.json").read_text())
    folder = path / "siglip-so400m-patch14-196"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.pop("vision_config")))
    config["mm_vision_tower"] = f"checkpoints/{folder.name}"
    (path / "config.json").write_text(json.dumps(config))
    assert layouts.recognise(Checkpoint(path)).eyes == described


def test_layers_are_counted_in_configurations_from_before_and_after_the_cut(
    make_checkpoint: Make, tmp_path: Path
) -> None:
    """A vision configuration from before the cut, one from after it, and a checkpoint that was never cut."""

    def after(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        config["vision_config"]["num_hidden_layers"] = 3

    plain = convert(make_checkpoint(Tiny()), tmp_path / "plain", id="imp", language="f16")
    counted = convert(make_checkpoint(Tiny(), after), tmp_path / "counted", id="imp", language="f16")
    assert counted.files == plain.files

    def uncut(tensors: dict[str, Any], config: dict[str, Any]) -> None:
        config["vision_config"]["num_hidden_layers"] = 27
        first = {name: values for name, values in tensors.items() if f"{EYES}encoder.layers.0." in name}
        for name, values in first.items():
            tensors |= {name.replace("layers.0.", f"layers.{number}."): values for number in range(3, 27)}

    checkpoint = Checkpoint(make_checkpoint(Tiny(), uncut))
    assert layouts.recognise(checkpoint).eyes.layers == 26


@pytest.mark.parametrize("eyes_in", ["vision_config", "siglip-so400m-patch14-56"])
@pytest.mark.parametrize("size", [384, 28])
def test_the_picture_size_follows_from_the_positions(tmp_path: Path, eyes_in: str, size: int) -> None:
    tiny = Tiny("older", eyes_in=eyes_in)
    right = convert(checkpoints.write(tmp_path / "right", tiny, shards=3), tmp_path / "first", id="imp")
    path = checkpoints.write(tmp_path / "wrong", tiny, shards=3)
    file = path / ("config.json" if eyes_in == "vision_config" else f"{eyes_in}/config.json")
    config = json.loads(file.read_text())
    config["vision_config"]["image_size"] = size
    file.write_text(json.dumps(config))
    made = convert(path, tmp_path / "second", id="imp")
    assert (made.image.size, made.image.tokens) == (56, 16)
    assert made.files == right.files

    # As in a pull: one weight file after the other, each deleted before the next, each by a separate process.
    for left in (3, 2, 1):
        conversion = Conversion(path, tmp_path / "third", id="imp")
        assert len(conversion.files) == left
        conversion.take(path / conversion.files[0])
    assert conversion.finish().files == right.files


def test_a_size_that_fits_the_positions_is_kept(make_checkpoint: Make) -> None:
    """384 pixels have 27 patches of 14, like 378."""
    eyes = layouts.recognise(Checkpoint(make_checkpoint(Tiny(image_size=60)))).eyes
    assert (eyes.image_size, eyes.tokens) == (60, 16)
    assert replace(eyes, named_size=384).of_side(27).image_size == 384
    assert replace(eyes, named_size=384).of_side(14).image_size == 196


def test_a_failing_conversion_leaves_the_older_bundle_unchanged(make_checkpoint: Make, tmp_path: Path) -> None:
    target = tmp_path / "models" / "imp"
    before = convert(make_checkpoint(Tiny()), target, language="f16")
    broken = make_checkpoint(Tiny(seed=1), lambda tensors, config: config.update(image_aspect_ratio="anyres"))
    refusal(broken, target)
    assert bundle.load(target) == before
    before.verify()
    after = convert(make_checkpoint(Tiny(seed=2)), target, language="f16")
    assert after.revision != before.revision
    assert [p.name for p in target.parent.iterdir()] == ["imp"]


def test_the_manifest_repeats_the_checkpoints_values(make_checkpoint: Make, tmp_path: Path) -> None:
    path = make_checkpoint(Tiny(aspect="pad"))
    made = convert(path, tmp_path / "model", figures={"colour": 0.97})
    config = json.loads((path / "config.json").read_text())
    assert made == bundle.load(tmp_path / "model")
    assert (made.id, made.source, made.family, made.template) == ("model", path.name, "phi2", "phi2")
    assert (made.image.size, made.image.aspect, made.image.tokens) == (56, "pad", 16)
    assert made.text.eos == (config["eos_token_id"],) and not made.text.add_bos
    assert made.context_tokens == config["max_position_embeddings"]
    assert made.figures["colour"] == 0.97 and {*made.figures} == {"colour", "verify"}
    assert {key: file.type for key, file in made.files.items()} == {"language": "q4_k_m", "vision": "int8"}


def test_an_id_of_the_catalogue_brings_its_entry(make_checkpoint: Make) -> None:
    described = describe(Checkpoint(make_checkpoint(Tiny())), "imp-demo-196")
    assert (described.id, described.demo, described.sampling.temperature) == ("imp-demo-196", True, 0.0)


@pytest.mark.parametrize("kind", [*vision.TYPES])
def test_the_vision_file_runs_with_the_phones_onnxruntime(make_checkpoint: Make, tmp_path: Path, kind: str) -> None:
    import onnx

    made = convert(make_checkpoint(Tiny()), tmp_path / "model", language="f16", vision=kind)
    model = onnx.load(made.vision)
    assert model.ir_version <= 10
    assert {opset.domain: opset.version for opset in model.opset_import}[""] <= 17
