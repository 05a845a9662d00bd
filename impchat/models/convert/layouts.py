"""Which tensors a model has, and where a checkpoint keeps them.

In: an open checkpoint. Out: `Weights`: what kind of model it is (`Language`, `Eyes`) and each tensor under one name,
whatever the layout it was saved in. The language tensors have the names of the transformers class of their family
(`model.layers.0.self_attn.q_proj.weight`), the vision tower's begin with `eyes.`, the projector's with `projector.`.
Nothing is guessed: a tensor too many, too few or of another shape ends it with its name.
This file does not know what the tensors are for, nor what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from impchat.errors import ModelError
from impchat.models.convert import phi2
from impchat.models.convert.checkpoint import Checkpoint, Config, listed
from impchat.models.convert.parts import Family, Language, Part, Shape

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Array


@dataclass(frozen=True, slots=True)
class Eyes:
    """A SigLIP vision tower, cut behind the layer whose output is used, and the two-layer projector behind it."""

    hidden: int
    layers: int  # those that are kept
    heads: int
    mlp: int
    image_size: int
    patch_size: int
    norm_eps: float
    projected: int  # hidden size of the language model

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which checkpoints of a family name their tensors."""

    name: str
    family: Family
    mark: str  # a piece of a tensor name that only this layout has
    prefix: str  # before `.vision_tower` and `.mm_projector`
    parts: Callable[[Language], dict[str, Part]]  # where each language tensor lies


LAYOUTS = (
    Layout("newer Phi", phi2.FAMILY, ".self_attn.dense.", "model", phi2.newer_parts),
    Layout("older Phi", phi2.FAMILY, ".mixer.Wqkv.", "transformer", phi2.older_parts),
)


class Weights:
    """Every tensor of a checkpoint by its name here, all of them present and of the right shape."""

    def __init__(
        self, checkpoint: Checkpoint, layout: Layout, language: Language, eyes: Eyes, parts: Mapping[str, Part]
    ) -> None:
        self.layout = layout
        self.language = language
        self.eyes = eyes
        self._checkpoint = checkpoint
        self._parts = parts

    def read(self, name: str) -> Array:
        """The tensor `name` as the checkpoint stores it: float32 or float16."""
        part = self._parts[name]
        return self._checkpoint.read(part.name, part.rows)

    def names(self, prefix: str) -> Iterator[str]:
        return (name for name in self._parts if name.startswith(prefix))


def recognise(checkpoint: Checkpoint) -> Weights:
    """The weights of an Imp checkpoint.

    Raises ModelError: "checkpoint.layout" (no layout we know), "checkpoint.config",
    "checkpoint.tensors_missing", "checkpoint.tensors_unknown", "checkpoint.tensor_shape"."""
    found = checkpoint.names
    layout = next((known for known in LAYOUTS if any(known.mark in name for name in found)), None)
    if layout is None:
        raise ModelError("checkpoint.layout", path=str(checkpoint.path), names=listed(found))
    language = layout.family.describe(checkpoint.config)
    eyes = describe_eyes(checkpoint, language)
    shapes = layout.family.shapes(language) | eye_shapes(eyes)
    parts = layout.parts(language) | {name: Part(_eye_source(name, layout.prefix)) for name in eye_shapes(eyes)}
    _check(checkpoint, parts, shapes, unused=_unused(layout, eyes))
    return Weights(checkpoint, layout, language, eyes, parts)


def describe_eyes(checkpoint: Checkpoint, language: Language) -> Eyes:
    """The vision tower that config.json describes: `vision_config` in it, or in the folder that `mm_vision_tower`
    names beside it (as imp-v1.5-3b-196 has it)."""
    config = checkpoint.config
    if config.values.get("mm_projector_type") != "mlp2x_gelu":
        raise config.wrong("mm_projector_type", config.values.get("mm_projector_type"))
    if "vision_config" in config.values:
        vision = config.inner("vision_config")
    else:
        folder = config.text("mm_vision_tower").rstrip("/").rsplit("/", 1)[-1]
        vision = Config(checkpoint.json(f"{folder}/config.json"), checkpoint.path / folder / "config.json")
        if "vision_config" in vision.values:
            vision = vision.inner("vision_config")
    if vision.values.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise vision.wrong("hidden_act", vision.values["hidden_act"])
    select = config.values.get("mm_vision_select_layer")
    if not isinstance(select, int) or not -vision.integer("num_hidden_layers") <= select < 0:
        raise config.wrong("mm_vision_select_layer", select)
    eyes = Eyes(
        hidden=vision.integer("hidden_size"),
        layers=vision.integer("num_hidden_layers") + 1 + select,  # -1 is the last layer's output, -2 the one before
        heads=vision.integer("num_attention_heads"),
        mlp=vision.integer("intermediate_size"),
        image_size=vision.integer("image_size"),
        patch_size=vision.integer("patch_size"),
        norm_eps=vision.number("layer_norm_eps", default=1e-6),  # SigLIP's configurations leave it out
        projected=language.hidden,
    )
    if eyes.hidden % eyes.heads:
        raise vision.wrong("num_attention_heads", eyes.heads)
    return eyes


def eye_shapes(eyes: Eyes) -> dict[str, Shape]:
    """Name -> shape of the tensors of the vision tower and the projector."""
    wide, mlp = eyes.hidden, eyes.mlp
    shapes: dict[str, Shape] = {
        "eyes.embeddings.patch_embedding.weight": (wide, 3, eyes.patch_size, eyes.patch_size),
        "eyes.embeddings.patch_embedding.bias": (wide,),
        "eyes.embeddings.position_embedding.weight": (eyes.tokens, wide),
    }
    for layer in (f"eyes.encoder.layers.{i}." for i in range(eyes.layers)):
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}{norm}.weight": (wide,), f"{layer}{norm}.bias": (wide,)}
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}self_attn.{projection}", wide, wide)
        shapes |= linear(f"{layer}mlp.fc1", mlp, wide) | linear(f"{layer}mlp.fc2", wide, mlp)
    return shapes | linear("projector.0", eyes.projected, wide) | linear("projector.2", eyes.projected, eyes.projected)


def linear(name: str, rows: int, columns: int) -> dict[str, Shape]:
    """Shapes of a linear layer that turns `columns` values into `rows`."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _eye_source(name: str, prefix: str) -> str:
    kind, rest = name.split(".", 1)
    return (
        f"{prefix}.vision_tower.vision_tower.vision_model.{rest}" if kind == "eyes" else f"{prefix}.mm_projector.{rest}"
    )


def _unused(layout: Layout, eyes: Eyes) -> dict[str, Shape]:
    """Tensors that Imp's training code keeps in its model although the feature is taken before them: they may be
    there and are not read."""
    name = _eye_source("eyes.post_layernorm", layout.prefix)
    return {f"{name}.weight": (eyes.hidden,), f"{name}.bias": (eyes.hidden,)}


def _check(
    checkpoint: Checkpoint,
    parts: Mapping[str, Part],
    shapes: Mapping[str, Shape],
    unused: Mapping[str, Shape],
) -> None:
    path = str(checkpoint.path)
    expected: dict[str, Shape] = {}
    for name, part in parts.items():
        rows = part.of if part.of is not None else shapes[name][0]
        expected[part.name] = (rows, *shapes[name][1:])
    if missing := expected.keys() - checkpoint.names:
        raise ModelError("checkpoint.tensors_missing", path=path, names=listed(missing))
    if unknown := checkpoint.names - expected.keys() - unused.keys():
        raise ModelError("checkpoint.tensors_unknown", path=path, names=listed(unknown))
    expected |= {name: shape for name, shape in unused.items() if name in checkpoint.names}
    for name, shape in sorted(expected.items()):
        if checkpoint.shape(name) != shape:
            raise ModelError(
                "checkpoint.tensor_shape",
                path=path,
                name=name,
                found=list(checkpoint.shape(name)),
                expected=list(shape),
            )
