"""`impchat convert --format hf`: an Imp as a LLaVA checkpoint for transformers and vLLM.

In: a checkpoint. Out: a folder with the same weights under LLaVA's names, its configuration, tokenizer, image processor
and chat template. If the head of the language model has a bias (Phi-2), transformers' own class would drop it: the
folder then includes a small class, which is loaded with trust_remote_code=True. vLLM does not need it, because it wraps
its own PhiForCausalLM, which has the bias.

The names are those of transformers since 4.52, which vLLM maps and loads in vllm/model_executor/models
(github.com/vllm-project/vllm): llava.py at 35d3c24b11a03faf6108c5f9e7b81634ea1c3e5d (`model.language_model.`,
`model.vision_tower.`, `model.multi_modal_projector.linear_1` and `_2`, `lm_head.`), siglip.py at
0c028ba489f560102a87a3e98b92caac5a6da8f1 (`vision_model.`; q, k and v separate; the norm after the tower left out) and
phi.py at 4652ef5d87ed8cf43f8c6f09d31cbf3b87d9b84e (q, k and v separate, `lm_head.bias`). These files were read, not
run: vLLM needs a GPU.
This file does not know bundles, GGUF or ONNX.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from impchat import bundle, prompts, settings
from impchat.errors import ModelError
from impchat.models.convert import layouts, vocabulary
from impchat.models.convert.checkpoint import CONFIG, GENERATION, INDEX, TOKENIZER, TOKENIZER_CONFIG, Checkpoint, Folder
from impchat.models.convert.layouts import Weights

IMAGE = "<image>"
CLASS_FILE = "llava_imp.py"  # next to this file, and in the folder
_PREFIXES = (
    ("eyes.", "model.vision_tower.vision_model."),
    ("projector.0.", "model.multi_modal_projector.linear_1."),
    ("projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.", "model.language_model."),
    ("lm_head.", "lm_head."),
)


def export(
    source: Path,
    target: Path,
    *,
    shard_bytes: int = 1_000_000_000,
    begun: Callable[[], object] = lambda: None,
) -> None:
    """Write the folder `target`, which must not exist, from the checkpoint in the folder `source`; it appears when it
    is complete. `shard_bytes`: maximum size of a weight file, unless one tensor exceeds it. `begun` is called once the
    checkpoint is recognised.

    Raises ModelError as `layouts.recognise` and `convert.describe`, "model.target_occupied" if `target` exists,
    "model.target_unwritable"."""
    from impchat.models.convert import describe

    checkpoint = Checkpoint(source)
    described = describe(checkpoint, "imp")
    weights = layouts.recognise(checkpoint)
    if target.exists():
        raise ModelError("model.target_occupied", path=str(target))
    begun()
    part = target.with_name(f".{target.name}.part")
    with bundle.writing(target):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            tokenizer, image = _tokenizer(source, weights)
            words = vocabulary.read(Folder(source), weights.language.vocab, weights.layout.family.pre_tokenizer)
            bos = tokenizer.id_to_token(words.bos) if words.add_bos else ""
            dtype = _write_weights(weights, part, shard_bytes)
            _write_words(part, described, tokenizer, bos)
            _write_config(part, weights, described, image, dtype)
            part.rename(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def name_of(ours: str) -> str:
    """LLaVA's name of a tensor named as in `layouts`."""
    return next(theirs + ours.removeprefix(prefix) for prefix, theirs in _PREFIXES if ours.startswith(prefix))


def _write_weights(weights: Weights, folder: Path, shard_bytes: int) -> str:
    """Write the weight files and their index, each tensor in its own type; return the type of the language model."""
    import torch
    from safetensors.torch import save_file

    where: dict[str, str] = {}
    shard: dict[str, Any] = {}
    total = 0

    def flush() -> None:
        if shard:
            name = f"model-{len(set(where.values())) + 1:05}.safetensors"
            save_file(shard, folder / name, metadata={"format": "pt"})
            where.update(dict.fromkeys(shard, name))
            shard.clear()

    for name, tensor in _tensors(weights):
        size = tensor.numel() * tensor.element_size()
        if sum(held.numel() * held.element_size() for held in shard.values()) + size > shard_bytes:
            flush()
        shard[name] = tensor
        total += size
    flush()
    _write(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    head = torch.from_numpy(weights.read("lm_head.weight"))
    return str(_exactly(head).dtype).removeprefix("torch.")


def _tensors(weights: Weights) -> Iterator[tuple[str, Any]]:
    import torch

    for ours in weights.names(""):
        yield name_of(ours), _exactly(torch.from_numpy(weights.read(ours)).contiguous())
    # The norm after the tower is not used, but transformers requires it.
    norm = "model.vision_tower.vision_model.post_layernorm"
    yield f"{norm}.weight", torch.ones(weights.eyes.hidden)
    yield f"{norm}.bias", torch.zeros(weights.eyes.hidden)


def _exactly(tensor: Any) -> Any:
    """`tensor`, in bfloat16 if it was stored as that."""
    import torch

    short = tensor.to(torch.bfloat16)
    return short if tensor.dtype == torch.float32 and torch.equal(short.float(), tensor) else tensor


def _tokenizer(source: Path, weights: Weights) -> tuple[Any, int]:
    """The checkpoint's tokenizer with `<image>` added, and the id of `<image>`. It adds nothing to a text: the
    beginning of a prompt is in the chat template."""
    from tokenizers import Tokenizer

    values = json.loads(vocabulary.tokenizer(Folder(source), weights.layout.family.pre_tokenizer).to_str())
    tokenizer = Tokenizer.from_str(json.dumps(values | {"post_processor": None}))
    tokenizer.add_special_tokens([IMAGE])
    image = tokenizer.token_to_id(IMAGE)
    if image is None or image >= weights.language.vocab:
        raise ModelError("checkpoint.tokenizer", path=str(source), detail=IMAGE)
    return tokenizer, image


def _write_words(folder: Path, described: bundle.Bundle, tokenizer: Any, bos: str) -> None:
    """Write the tokenizer's files and the chat template."""
    template = prompts.TEMPLATES[described.template]
    eos = tokenizer.id_to_token(described.text.eos[0]) or ""
    tokenizer.save(str(folder / TOKENIZER))
    values = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": eos,
        "image_token": IMAGE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": described.context_tokens,
    }
    _write(folder / TOKENIZER_CONFIG, values)
    (folder / "chat_template.jinja").write_text(chat_template(template, bos, eos), encoding="utf-8")


def chat_template(template: prompts.Template, bos: str, eos: str) -> str:
    """`template` in Jinja, with `bos` in front, for messages with a text or a list of pictures and texts."""

    def literal(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    return "".join(
        (
            "{%- macro words(content) -%}{%- if content is string -%}{{ content }}{%- else -%}",
            "{%- for part in content if part.type == 'image' -%}{{ ",
            literal(IMAGE + template.picture_end),
            " }}{%- endfor -%}",
            "{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}",
            "{%- endif -%}{%- endmacro -%}",
            "{%- set given = messages[0].role == 'system' -%}",
            "{{ ",
            literal(bos + template.system),
            " + (words(messages[0].content) if given else ",
            literal(settings.SYSTEM),
            ") }}",
            "{%- for message in (messages[1:] if given else messages) -%}",
            "{%- if message.role == 'user' -%}",
            f"{{{{ {literal(template.first)} if loop.first else {literal(template.later)} }}}}",
            "{{ words(message.content) }}{{ ",
            literal(template.answer),
            " }}{%- else -%}{{ ",
            literal(template.lead),
            " + words(message.content) + ",
            literal(eos if template.ends else ""),
            " }}{%- endif -%}{%- endfor -%}",
        )
    )


def _write_config(folder: Path, weights: Weights, described: bundle.Bundle, image: int, dtype: str) -> None:
    from impchat.models.convert import reference

    kind, text = reference.decoder(weights.language)
    eyes, rule = weights.eyes, described.image
    eos = list(described.text.eos)
    shared = {"eos_token_id": eos, "pad_token_id": eos[0], "bos_token_id": None}
    config: dict[str, Any] = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": dtype,
        "text_config": text.to_dict() | shared | {"architectures": [kind.__name__]},
        "vision_config": reference.tower(eyes).to_dict(),
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "vision_feature_layer": -1,  # later layers were cut off
        "vision_feature_select_strategy": "full",
        "image_token_index": image,
        "image_seq_length": eyes.tokens,
        "tie_word_embeddings": False,
    } | shared
    if "lm_head.bias" in set(weights.names("lm_head.")):
        shutil.copyfile(Path(__file__).with_name(CLASS_FILE), folder / CLASS_FILE)
        name = f"{Path(CLASS_FILE).stem}.ImpForConditionalGeneration"
        config["auto_map"] = {"AutoModelForImageTextToText": name}
    _write(folder / CONFIG, config)
    _write(folder / GENERATION, shared | {"do_sample": False})
    pictures = {
        "image_processor_type": "LlavaImageProcessor",
        "do_pad": rule.aspect == "pad",
        "do_resize": True,
        "size": {"height": rule.size, "width": rule.size},
        "resample": 3,  # bicubic
        "do_center_crop": False,
        "crop_size": {"height": rule.size, "width": rule.size},  # vLLM reads the picture's size from it
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(rule.mean),
        "image_std": list(rule.std),
        "do_convert_rgb": True,
    }
    _write(folder / "preprocessor_config.json", pictures)
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": eyes.patch_size,
        "vision_feature_select_strategy": "full",
        "num_additional_image_tokens": 0,
        "image_token": IMAGE,
    }
    _write(folder / "processor_config.json", processor)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
