"""Which tensors a model has, and where a checkpoint stores them.

In: a checkpoint. Out: a `Plan`: the kind of model (`Language`, `VisionLayout`) and the place of each tensor; `Weights`:
each tensor under one name, whatever layout it was saved in. Language tensors have the names of their family's class in
transformers (`model.layers.0.self_attn.q_proj.weight`), those of the vision tower begin with `eyes.`, those of the
projector with `projector.`. Nothing is guessed: an extra, missing or differently shaped tensor raises an error with its
name.
This file does not know what the tensors are for, or what is made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from impchat.errors import ModelError
from impchat.models.convert import phi2, phi3, qwen2
from impchat.models.convert.checkpoint import Checkpoint, Config, Folder, listed
from impchat.models.convert.parts import Family, Language, Part, Shape

if TYPE_CHECKING:
    from impchat.models.convert.checkpoint import Array


@dataclass(frozen=True, slots=True)
class VisionLayout:
    """A SigLIP vision tower, cut after the layer whose output is used, and the two-layer projector that follows it."""

    hidden: int
    layers: int  # without those cut off
    heads: int
    mlp: int
    image_size: int
    patch_size: int
    norm_eps: float
    projected: int  # hidden size of the language model
    named_size: int | None = field(default=None, compare=False)  # picture size in the name of the tower

    @property
    def tokens(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    def of_side(self, side: int) -> VisionLayout:
        """This encoder for pictures of `side` x `side` patches. The size from the configuration or the tower's name is
        kept if it gives as many patches: 384 pixels hold 27 patches of 14 and a remainder."""
        sizes = [self.image_size, self.named_size or 0, side * self.patch_size]
        return replace(self, image_size=next(size for size in sizes if size // self.patch_size == side))


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which checkpoints of a family name their tensors."""

    name: str
    family: Family
    mark: str  # a part of a tensor name that only this layout has
    prefix: str  # before `.vision_tower` and `.mm_projector`
    moved: Callable[[Language], dict[str, Part]] | None = None  # None: language tensors are named as in transformers

    def parts(self, language: Language) -> dict[str, Part]:
        """The place of each language tensor."""
        return self.moved(language) if self.moved else {name: Part(name) for name in self.family.shapes(language)}


LAYOUTS = (
    Layout("newer Phi", phi2.FAMILY, ".self_attn.dense.", "model"),
    Layout("older Phi", phi2.FAMILY, ".mixer.Wqkv.", "transformer", phi2.older_parts),
    Layout("Qwen2", qwen2.FAMILY, ".mlp.gate_proj.", "model"),
    Layout("Phi-3", phi3.FAMILY, ".mlp.gate_up_proj.", "model"),
)
_POSITIONS = "eyes.embeddings.position_embedding.weight"
# SigLIP SO400M/14, for configurations that only name the tower
_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The description of a checkpoint, from its configuration and the names of its tensors."""

    layout: Layout
    language: Language
    eyes: VisionLayout
    shapes: Mapping[str, Shape]  # our name of a tensor -> shape
    parts: Mapping[str, Part]  # our name of a tensor -> its place in the checkpoint
    sources: Mapping[str, Shape]  # the checkpoint's name of a tensor -> shape; includes optional ones that are not read

    def fitted(self, name: str, shape: Shape) -> Plan:
        """This plan, given the shape of the checkpoint's tensor `name`. The position table has a row for each patch of
        a square picture, so it determines the size of pictures, whatever the configuration says."""
        side = math.isqrt(shape[0]) if shape else 0
        if name != eye_source(_POSITIONS, self.layout.prefix) or shape != (side * side, self.eyes.hidden):
            return self
        eyes = self.eyes.of_side(side)
        shapes = {**self.shapes, **eye_shapes(eyes)}
        return replace(self, eyes=eyes, shapes=shapes, sources={**self.sources, name: shape})


class Weights:
    """Every tensor of a checkpoint by our name, all present and of the right shape."""

    def __init__(self, plan: Plan, read: Callable[[str], Array]) -> None:
        self.layout = plan.layout
        self.language = plan.language
        self.eyes = plan.eyes
        self._plan = plan
        self._read = read

    def read(self, name: str) -> Array:
        """The tensor `name`: float32 or float16."""
        return self._read(name)

    def names(self, prefix: str) -> Iterator[str]:
        return (name for name in self._plan.parts if name.startswith(prefix))


def recognise(checkpoint: Checkpoint) -> Weights:
    """The weights of an Imp checkpoint.

    Raises ModelError as `plan`, and "checkpoint.tensor_shape"."""
    planned = plan(checkpoint)
    check_shapes(planned, checkpoint.names, checkpoint.shape, str(checkpoint.path))

    def read(name: str) -> Array:
        part = planned.parts[name]
        return checkpoint.read(part.name, part.rows)

    return Weights(planned, read)


def plan(folder: Folder) -> Plan:
    """The plan of the checkpoint in `folder`. For a Folder that is not a Checkpoint (weight files may be missing), the
    picture size is that of the configuration, see `Plan.fitted`.

    Raises ModelError: "checkpoint.layout" (unknown layout), "checkpoint.config", "checkpoint.tensors_missing",
    "checkpoint.tensors_unknown"."""
    found, path = folder.names, str(folder.path)
    layout = next((known for known in LAYOUTS if any(known.mark in name for name in found)), None)
    if layout is None:
        raise ModelError("checkpoint.layout", path=path, names=listed(found))
    language = layout.family.describe(folder.config)
    eyes = describe_eyes(folder, language)
    shapes = layout.family.shapes(language) | eye_shapes(eyes)
    parts = layout.parts(language) | {name: Part(eye_source(name, layout.prefix)) for name in eye_shapes(eyes)}
    sources: dict[str, Shape] = {}
    for name, part in parts.items():
        sources[part.name] = (part.of if part.of is not None else shapes[name][0], *shapes[name][1:])
    if missing := sources.keys() - found:
        raise ModelError("checkpoint.tensors_missing", path=path, names=listed(missing))
    sources |= _unused(folder, layout, eyes)
    if unknown := found - sources.keys():
        raise ModelError("checkpoint.tensors_unknown", path=path, names=listed(unknown))
    planned, positions = Plan(layout, language, eyes, shapes, parts, sources), parts[_POSITIONS].name
    return planned.fitted(positions, folder.shape(positions)) if isinstance(folder, Checkpoint) else planned


def check_shapes(plan: Plan, names: Iterable[str], shape: Callable[[str], Shape], path: str) -> None:
    """Raises ModelError "checkpoint.tensor_shape" for the first of the checkpoint's tensors `names` with a wrong shape.
    `path`: where they are stored, for the error."""
    for name in sorted(names):
        found, expected = shape(name), plan.sources[name]
        if found != expected:
            raise ModelError(
                "checkpoint.tensor_shape", path=path, name=name, found=list(found), expected=list(expected)
            )


def describe_eyes(folder: Folder, language: Language) -> VisionLayout:
    """The vision tower of a checkpoint, from config.json (`vision_config`, `vision_tower_config`), else from the
    subfolder that `mm_vision_tower` names (imp-v1.5-3b-196), else SigLIP SO400M if that is its name. The layers are
    counted, because the description may be older than the cut.

    Raises ModelError "checkpoint.config"."""
    config = folder.config
    if config.values.get("mm_projector_type") != "mlp2x_gelu":
        raise config.wrong("mm_projector_type", config.values.get("mm_projector_type"))
    vision = _vision_config(folder)
    if vision.values.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
        raise vision.wrong("hidden_act", vision.values["hidden_act"])
    select, declared = config.values.get("mm_vision_select_layer"), vision.integer("num_hidden_layers")
    if not isinstance(select, int) or not -declared <= select < 0:
        raise config.wrong("mm_vision_select_layer", select)
    named = _named_size(config)
    # Imp's code deletes the layers that it does not use. If the described number equals the layers found, the
    # description was written after that; the fixed one of SO400M never was.
    is_cut = _count_layers(folder) == declared != (_SO400M["num_hidden_layers"] if named else 0)
    eyes = VisionLayout(
        hidden=vision.integer("hidden_size"),
        layers=declared if is_cut else declared + 1 + select,  # -1 is the last layer's output, -2 the one before
        heads=vision.integer("num_attention_heads"),
        mlp=vision.integer("intermediate_size"),
        image_size=vision.integer("image_size"),
        patch_size=vision.integer("patch_size"),
        norm_eps=vision.number("layer_norm_eps", default=1e-6),  # missing in SigLIP's configurations
        projected=language.hidden,
        named_size=named,
    )
    if eyes.hidden % eyes.heads:
        raise vision.wrong("num_attention_heads", eyes.heads)
    return eyes


def _vision_config(folder: Folder) -> Config:
    config = folder.config
    for name in ("vision_config", "vision_tower_config"):
        if name in config.values:
            return config.inner(name)
    tower = config.text("mm_vision_tower").rstrip("/").rsplit("/", 1)[-1]
    file = f"{tower}/config.json"
    if folder.has(file):
        vision = Config(folder.json(file), folder.path / file)
        return vision.inner("vision_config") if "vision_config" in vision.values else vision
    if (size := _named_size(config)) is not None:
        return Config(_SO400M | {"image_size": size}, config.path)
    raise config.wrong("mm_vision_tower", tower)


def _named_size(config: Config) -> int | None:
    """The picture size in the name of the tower, if it is SigLIP SO400M."""
    known = re.fullmatch(r"(?:.*/)?siglip-so400m-patch14-(\d+)/*", str(config.values.get("mm_vision_tower")))
    return int(known[1]) if known else None


def _count_layers(folder: Folder) -> int:
    """The number of layers of the vision tower, counted by their first norm."""
    of_layer = re.compile(r".*\.vision_model\.encoder\.layers\.\d+\.layer_norm1\.weight")
    return sum(of_layer.fullmatch(name) is not None for name in folder.names)


def eye_shapes(eyes: VisionLayout) -> dict[str, Shape]:
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
    """Shapes of a linear layer from `columns` to `rows` values."""
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def eye_source(name: str, prefix: str) -> str:
    """The checkpoint's name of the vision tower's or projector's tensor `name`, in a layout with this prefix."""
    kind, rest = name.split(".", 1)
    return (
        f"{prefix}.vision_tower.vision_tower.vision_model.{rest}" if kind == "eyes" else f"{prefix}.mm_projector.{rest}"
    )


def _unused(folder: Folder, layout: Layout, eyes: VisionLayout) -> dict[str, Shape]:
    """Tensors that may exist and are not read, because the feature is taken before them: the norm that Imp's training
    code keeps in its model, and the last layers of a tower that was not cut."""
    whole = eye_shapes(replace(eyes, layers=max(eyes.layers, _count_layers(folder))))
    expected = whole | {f"eyes.post_layernorm.{kind}": (eyes.hidden,) for kind in ("weight", "bias")}
    return {eye_source(name, layout.prefix): shape for name, shape in expected.items() if name not in eye_shapes(eyes)}
