"""What a conversion costs at full size: `python -m benchmarks.fullsize FOLDER`. Requires the extra `convert`, and 20
GB.

In: a folder. Out: in it, a checkpoint with the layout, names and shapes of Imp-3B@196 (older Phi layout, 7 weight
files) and random values; made from it, a bundle and `mmproj.gguf`, its vision encoder for llama.cpp's own programs; on
standard output, for each step, the time, the peak memory (see memory.py), the sizes of the files, and how long an
answer about a picture takes. Speed does not depend on the values; the answers of such a model are meaningless. Each
answer consists of made-up words, one token each, and never ends by itself: its text gives the same token ids again, so
that programs that keep answers as text do the same work as those that keep token ids.
This file does not know trained models.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.memory import measured
from impchat import bundle, settings
from impchat.engines.local.engine import LocalEngine
from impchat.messages import Finished, Picture, Prompt, Sampling, Text, Turn
from impchat.models.convert import checkpoint, convert, mmproj, phi2
from impchat.models.convert.layouts import LAYOUTS, VisionLayout, eye_shapes, eye_source
from impchat.models.convert.parts import Language

if TYPE_CHECKING:
    import numpy as np

LANGUAGE = Language(
    family="phi2",
    vocab=51200,
    hidden=2560,
    layers=32,
    heads=32,
    mlp=10240,
    norm_eps=1e-5,
    rotary_dims=32,
    rope_theta=10000.0,
    context=2048,
)
EYES = VisionLayout(
    hidden=1152, layers=26, heads=16, mlp=4304, image_size=196, patch_size=14, norm_eps=1e-6, projected=2560
)
FILES = 7
TOWER = "siglip-so400m-patch14-196"
ID = "random-3b-196"  # not a published model, so its answers need not make sense
MMPROJ = "mmproj.gguf"
_TOKENS = 50257  # the last one is special
# Words are a space and two of these syllables. Consonants and vowels differ, so a word has only one way to be merged.
_SYLLABLES = [a + b for a in "BCDFGHJKLMNPQRSTVWXZbcdfghjklmnpqrstvwxz" for b in "aeiouy"]
_SPACE = "\u0120"  # a space in byte-level characters


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the checkpoint: its name there -> shape."""
    older = next(layout for layout in LAYOUTS if layout.name == "older Phi")
    ours = phi2.shapes(LANGUAGE)
    found = {}
    for name, part in older.parts(LANGUAGE).items():
        found[part.name] = ((part.of or ours[name][0]), *ours[name][1:])
    return found | {eye_source(name, older.prefix): shape for name, shape in eye_shapes(EYES).items()}


def write(folder: Path) -> None:
    """Write the checkpoint into `folder`, one tensor at a time."""
    folder.mkdir(parents=True)
    sizes = shapes()
    total = sum(_bytes(shape) for shape in sizes.values())
    names: list[list[str]] = [[] for _ in range(FILES)]
    before = 0
    for name, shape in sizes.items():
        names[before * FILES // total].append(name)
        before += _bytes(shape)
    where: dict[str, str] = {}
    for n, group in enumerate(names):
        file = f"model-{n + 1:05}-of-{FILES:05}.safetensors"
        where |= dict.fromkeys(group, file)
        _write_tensors(folder / file, {name: sizes[name] for name in group}, seed=n)
    told = {checkpoint.INDEX: {"metadata": {"total_size": total}, "weight_map": where}, checkpoint.CONFIG: _config()}
    told |= {checkpoint.TOKENIZER: tokenizer(), f"{TOWER}/config.json": {"vision_config": _tower()}}
    (folder / TOWER).mkdir()
    for name, values in told.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")


def _write_tensors(path: Path, sizes: dict[str, tuple[int, ...]], seed: int) -> None:
    """Write a safetensors file of random float16."""
    import numpy as np

    head: dict[str, Any] = {}
    at = 0
    for name, shape in sizes.items():
        head[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + _bytes(shape)]}
        at += _bytes(shape)
    text = json.dumps(head).encode()
    draw = np.random.default_rng(seed)
    with path.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, shape in sizes.items():
            out.write(_values(draw, name, shape).tobytes())


def _values(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    """Random values whose scale neither grows nor vanishes from layer to layer."""
    values = draw.standard_normal(shape, "float32")
    if name.endswith("bias"):
        values *= 0.1
        if name == "lm_head.linear.bias":  # never an end, nor a token that merges with the one before it
            values[: first_word()] = values[_TOKENS - 1 :] = -1000
    elif len(shape) == 1:
        values = 1 + 0.1 * values
    elif "embd" not in name:
        values *= (values.size / shape[0]) ** -0.5
    return values.astype("float16")


def _bytes(shape: tuple[int, ...]) -> int:
    size = 2
    for side in shape:
        size *= side
    return size


def _config() -> dict[str, Any]:
    return {
        "architectures": ["ImpForCausalLM"],
        "model_type": "imp",
        "vocab_size": LANGUAGE.vocab,
        "n_embd": LANGUAGE.hidden,
        "n_layer": LANGUAGE.layers,
        "n_head": LANGUAGE.heads,
        "n_inner": None,
        "n_positions": LANGUAGE.context,
        "rotary_dim": LANGUAGE.rotary_dims,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LANGUAGE.norm_eps,
        "eos_token_id": 50295,
        "image_token": "<image>",
        "image_token_index": 50296,
        "image_aspect_ratio": "square",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": TOWER,
    }


def _tower() -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": EYES.hidden,
        "intermediate_size": EYES.mlp,
        "num_attention_heads": EYES.heads,
        "num_hidden_layers": EYES.layers + 1,
        "image_size": EYES.image_size,
        "patch_size": EYES.patch_size,
    }


def first_word() -> int:
    """The id of the first token that is a word."""
    return 256 + 2 * len(_SYLLABLES)


def tokenizer() -> dict[str, Any]:
    """A tokenizer with as many tokens as Phi-2's: all bytes, syllables, and made-up words. A text of words gives one
    token for each."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges = [f"{syllable[0]} {syllable[1]}" for syllable in _SYLLABLES]
    merges += [f"{_SPACE} {syllable}" for syllable in _SYLLABLES]
    words = [f"{_SPACE}{first} {second}" for first in _SYLLABLES for second in _SYLLABLES]
    merges += words[: _TOKENS - 1 - first_word()]
    texts = letters + [merge.replace(" ", "") for merge in merges]
    rules = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = {50256: "<|endoftext|>", 50295: "</s>", 50296: "<image>"}
    split = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {text: number for number, text in enumerate(texts)}, "merges": merges}
    unused = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor"))
    told = [{"id": number, "content": text} | rules for number, text in added.items()]
    parts = {"added_tokens": told, "pre_tokenizer": split, "decoder": split, "model": model}
    return {"version": "1.0"} | unused | parts


def _convert(source: Path, target: Path, language: str, vision: str) -> None:
    with measured(f"convert to {language} and {vision}"):
        convert(source, target, language=language, vision=vision, id=ID)


def _export(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with measured(f"export {MMPROJ}"):
        mmproj.export(source, target)


def _answer(target: Path, picture: Path) -> None:
    made = bundle.load(target)
    for part, file in made.files.items():
        print(f"  {part}: {file.bytes / 1e9:.2f} GB, {file.type}; figures {dict(made.figures)}", flush=True)
    data = picture.read_bytes()
    shown = Picture(sha256(data).hexdigest(), data)
    prompt = Prompt(settings.SYSTEM, (Turn("user", "What is in this picture?", (shown,)),))
    with measured("load, answer a picture with 64 tokens, close"):
        engine = LocalEngine(made, slots=1)
        begun = time.perf_counter()
        first = None
        for event in engine.start(prompt, Sampling(temperature=0, max_tokens=64)).events():
            if first is None and isinstance(event, Text):
                first = time.perf_counter() - begun
            if isinstance(event, Finished):
                words = "none" if first is None else f"{first:.1f} s"
                print(
                    f"  first words after {words}, {len(event.tokens)} tokens after {time.perf_counter() - begun:.1f} s"
                )
        engine.close()


def apart(work: Callable[..., None], *args: object) -> None:
    """Run `work` in a fresh process, so that only its own memory is measured."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=args)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(process.exitcode or 1)


def main() -> None:
    """Write the checkpoint if it is missing, convert it, export its vision encoder, and answer with it."""
    parser = argparse.ArgumentParser(description="What converting costs at full size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("assets/samples/landscape.jpg"))
    parser.add_argument("--language", default=settings.LANGUAGE_TYPE)
    parser.add_argument("--vision", default=settings.VISION_TYPE)
    args = parser.parse_args()
    source, target = args.folder / "checkpoint", args.folder / ID
    if not (source / checkpoint.CONFIG).is_file():
        shutil.rmtree(source, ignore_errors=True)
        with measured("write the checkpoint"):
            write(source)
    size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    print(f"  {FILES} weight files, {size / 1e9:.2f} GB", flush=True)
    apart(_convert, source, target, args.language, args.vision)
    apart(_export, source, args.folder / MMPROJ)
    apart(_answer, target, args.picture)


if __name__ == "__main__":
    main()
