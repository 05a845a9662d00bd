"""The LLaVA checkpoint of an Imp: transformers loads it in a new process and gives the source's answers; its tensor
names are those that vLLM loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from impchat import images, paths, prompts, settings
from impchat.errors import ModelError
from impchat.messages import Picture, Prompt, Turn
from impchat.models.convert import describe, hf
from impchat.models.convert.checkpoint import Folder
from impchat.models.convert.measure import sample
from impchat.models.convert.reference import Reference
from impchat.models.convert.tokens import Tokens
from tests.convert import checkpoints
from tests.convert.conftest import Tiny

QUESTION = "What colour is the circle?"
COUNT = 16
CLOSE = 0.002  # both are transformers in float32: if the two best logits differ by less, either token is right
FRESH = """
import json, sys
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
torch.set_num_threads(1)
question, picture, count, *folders = sys.argv[1:]
for folder in folders:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, dtype="float32")
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(asked)
    inputs = processor(images=Image.open(picture), text=text, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=int(count), eos_token_id=[], do_sample=False)
    read = inputs["input_ids"].shape[1]
    result = {
        "class": type(model).__name__,
        "image": model.config.image_token_index,
        "ids": inputs["input_ids"][0].tolist(),
        "pixels": inputs["pixel_values"].double().sum((-1, -2)).flatten().tolist(),
        "made": made[0, read:].tolist(),
    }
    print(json.dumps(result))
"""


def test_transformers_in_a_new_process_gives_the_sources_answers(tmp_path: Path) -> None:
    ids = ("imp-v1.5-3b-196", "imp-v1.5-2b", "imp-v1.5-4b")
    for id in ids:
        hf.export(checkpoints.write(tmp_path / id, checkpoints.FAMILY[id], shards=2), tmp_path / f"{id}-hf")
    words = [QUESTION, str(paths.samples_dir() / "shapes.png"), str(COUNT), *(str(tmp_path / f"{id}-hf") for id in ids)]
    run = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", FRESH, *words],
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "MISSING" not in run.stderr and "UNEXPECTED" not in run.stderr
    results = [json.loads(line) for line in run.stdout.splitlines()]
    own = "ImpForConditionalGeneration"
    assert [one["class"] for one in results] == [own, *["LlavaForConditionalGeneration"] * 2]  # only Phi-2 has the bias
    for id, one in zip(ids, results, strict=True):
        reference = Reference(tmp_path / id)
        described = describe(Folder(tmp_path / id), id)
        shown, rule = sample("shapes.png"), described.image
        pixels = images.model_input(shown.data, rule.size, rule.aspect, rule.mean, rule.std)
        assert one["pixels"] == pytest.approx(pixels.sum((-1, -2), dtype="float64").flatten().tolist(), rel=1e-4, abs=1)
        prompt = Prompt(settings.SYSTEM, (Turn("user", QUESTION, (shown,)),))
        tokens = Tokens(reference.tokenizer)
        begin = Folder(tmp_path / id).config.values["bos_token_id"] if described.text.add_bos else None
        pieces = prompts.render(prompt, described.template, tokens.encode, described.text.eos[0], begin)
        seen = [[one["image"]] * rule.tokens if isinstance(piece, Picture) else piece.ids for piece in pieces]
        assert one["ids"] == [n for piece in seen for n in piece], id
        read = [reference.embed(pixels)[0] if isinstance(piece, Picture) else piece.ids for piece in pieces]
        greedy = reference.greedy(read, COUNT)
        sure = next((n for n, margin in enumerate(greedy.margins) if margin < CLOSE), COUNT)
        assert one["made"][:sure] == list(greedy.tokens[:sure])
        assert sure > 3, "the random model's answer is too short to compare"


# The names that vLLM's loader maps and has parameters for, in the files and at the commits listed in
# impchat/models/convert/hf.py: llava.py replaces the first prefix of each pair by the second; the parts load the rest.
MAPPED = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "lm_head.": "language_model.lm_head.",
}
TOWER = "vision_tower.vision_model."
LOADED = (
    {f"{TOWER}embeddings.patch_embedding.{kind}" for kind in ("weight", "bias")}
    | {f"{TOWER}embeddings.position_embedding.weight"}
    | {
        f"{name}.{kind}"
        for kind in ("weight", "bias")
        for name in (
            f"{TOWER}post_layernorm",  # siglip.py omits it if it is not needed
            *(f"{TOWER}encoder.layers.0.{x}" for x in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")),
            *(f"{TOWER}encoder.layers.0.self_attn.{x}_proj" for x in ("q", "k", "v", "out")),
            "multi_modal_projector.linear_1",
            "multi_modal_projector.linear_2",
            *(f"language_model.model.layers.0.{x}" for x in ("input_layernorm", "mlp.fc1", "mlp.fc2")),
            *(f"language_model.model.layers.0.self_attn.{x}" for x in ("q_proj", "k_proj", "v_proj", "dense")),
            "language_model.model.final_layernorm",
            "language_model.lm_head",
        )
    }
    | {"language_model.model.embed_tokens.weight"}
)


def test_every_tensor_has_a_parameter_in_vllm_and_every_parameter_a_tensor(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "imp", Tiny(layout="older", layers=1, eyes_layers=1))
    hf.export(source, tmp_path / "llava")
    index = json.loads((tmp_path / "llava" / "model.safetensors.index.json").read_text())
    names = []
    for file in set(index["weight_map"].values()):
        with safe_open(tmp_path / "llava" / file, "numpy") as opened:
            names += opened.keys()
    assert sorted(names) == sorted(index["weight_map"])

    def mapped(name: str) -> str:
        return next(new + name.removeprefix(old) for old, new in MAPPED.items() if name.startswith(old))

    assert {mapped(name) for name in names} == LOADED
    config = json.loads((tmp_path / "llava" / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert config["text_config"]["architectures"] == ["PhiForCausalLM"]
    # phi.py reads only these two fields for its rotary embedding and its MLP
    assert config["text_config"]["rope_parameters"]["partial_rotary_factor"] == 0.5
    assert config["text_config"]["intermediate_size"] == 4 * config["text_config"]["hidden_size"]


def test_large_weights_are_split_into_files(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "imp", Tiny(layers=1))
    hf.export(source, tmp_path / "llava", shard_bytes=200_000)
    index = json.loads((tmp_path / "llava" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 3
    assert sorted(path.name for path in (tmp_path / "llava").glob("*.safetensors")) == files


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    source = checkpoints.write(tmp_path / "imp", Tiny(layers=1))
    (tmp_path / "llava").mkdir()
    with pytest.raises(ModelError) as failure:
        hf.export(source, tmp_path / "llava")
    assert failure.value.code == "model.target_occupied"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["imp", "llava"]
