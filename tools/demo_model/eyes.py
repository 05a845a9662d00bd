"""Training targets of the vision tower: each patch predicts what it shows and where, before any language is learned.

In: scenes. Out: targets per patch as integer arrays, and the heads and the loss. Only what is learned per patch is
available to the answers, so each patch of a thing predicts its kind, colour, ninth of the picture, box and rank in
reading order, and every patch predicts the number of things and which of its parts are drawn on. The heads are
discarded after training.
This file does not know the language.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tools.demo_model.scenes import COLOURS, SHAPES, Scene

GRID = 14
NOTHING, PHOTO = 0, len(SHAPES) + 1  # kinds of patches in addition to the shapes
COUNTS = 7
PARTS = 49  # of a patch, 7x7
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Heads:
    """The number of classes of each head, in the order of `targets`."""

    kind: int = len(SHAPES) + 2
    count: int = COUNTS
    colour: int = len(COLOURS)
    cell: int = 9
    rank: int = 6


HEADS = Heads()
_WIDTHS = (HEADS.kind, HEADS.count, HEADS.colour, HEADS.cell, HEADS.rank)
_MEASURES = (4, 1, PARTS)


def pixels(picture: Image.Image, side: int = 196) -> NDArray[np.uint8]:
    """The picture as the model sees it (`square` aspect, bicubic), uint8 (3, side, side)."""
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def targets(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes (196, 5) in the order kind, count, colour, cell, rank; and measures (196, 54): the box, how much of it
    the thing fills, and which of the patch's 7x7 parts are drawn on. Patches without a thing have class -1 except for
    kind and count, and 0 for the first five measures."""
    classes = np.full((GRID * GRID, len(_WIDTHS)), -1, np.int64)
    measures = np.zeros((GRID * GRID, sum(_MEASURES)), np.float32)
    classes[:, 0] = PHOTO if scene.photo else NOTHING
    classes[:, 1] = min(len(scene.things), COUNTS - 1)
    mask = np.asarray(scene.mask.resize((GRID * 14, GRID * 14), Image.Resampling.NEAREST))
    shares = mask.reshape(GRID, 14, GRID, 14).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    measures[:, 5:] = (shares.reshape(-1, 7, 2, 7, 2) > 0).mean((2, 4)).reshape(-1, PARTS)
    best = np.full(GRID * GRID, 0.18)  # a patch belongs to the thing that covers most of it, at least this share
    for rank, thing in enumerate(scene.things):
        share = (shares == rank + 1).mean(1)
        own = share > best
        best[own] = share[own]
        classes[own, 0] = 1 + SHAPES.index(thing.kind)
        classes[own, 2] = _COLOUR_NAMES.index(thing.colour)
        classes[own, 3] = thing.cell
        classes[own, 4] = min(rank, HEADS.rank - 1)
        x1, y1, x2, y2 = thing.box
        measures[own, :5] = (x1, y1, x2, y2, share.sum() / ((x2 - x1) * (y2 - y1) * GRID * GRID))
    return classes, measures


class Teacher(nn.Module):
    """Linear heads on the tower's features, and their loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, sum(_WIDTHS))
        self.measures = nn.Linear(width, sum(_MEASURES))

    def loss(self, features: Tensor, classes: Tensor, measures: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The sum of the heads' losses, and per head the share of correct patches (for boxes mean error and IoU)."""
        x = self.norm(features).flatten(0, 1)
        classes, measures = classes.flatten(0, 1), measures.flatten(0, 1)
        things = classes[:, 2] >= 0
        weight = torch.where(classes[:, 0] == NOTHING, 0.25, 1.0)[~things]
        logits = self.classes(x).split(_WIDTHS, -1)
        kind = F.cross_entropy(logits[0], classes[:, 0], reduction="none")
        # The kinds of things matter most; empty patches and photographs have lower weights.
        total = 1.5 * kind[things].mean() + 0.5 * (kind[~things] * weight).sum() / weight.sum()
        total = total + 0.3 * F.cross_entropy(logits[1], classes[:, 1])
        right = {"count": (logits[1].argmax(-1) == classes[:, 1]).float().mean().item()}
        for name, i, share in (("kind", 0, 0.0), ("colour", 2, 0.7), ("cell", 3, 0.4), ("rank", 4, 0.4)):
            picked, wanted = logits[i][things], classes[things, i]
            total = total + share * F.cross_entropy(picked, wanted)
            right[name] = (picked.argmax(-1) == wanted).float().mean().item()
        told, true = self.measures(x).split(_MEASURES, -1), measures.split(_MEASURES, -1)
        drawn_on = F.binary_cross_entropy_with_logits(told[2], true[2])
        box, fill, true_box, true_fill = told[0][things], told[1][things], true[0][things], true[1][things]
        box = box.float().sigmoid()
        error = (box - true_box).abs().mean()
        filled = (fill.sigmoid() - true_fill).abs().mean()
        missed = 1 - overlaps(box, true_box).mean()
        right |= {"box_error": error.item(), "box_iou": 1 - missed.item()}
        return total + 6 * error + 3 * missed + 2 * filled + drawn_on, right


def overlaps(boxes: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes (n, 4) given as x1, y1, x2, y2."""
    low, high = torch.maximum(boxes[:, :2], true[:, :2]), torch.minimum(boxes[:, 2:], true[:, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    either = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) + (true[:, 2:] - true[:, :2]).prod(-1) - both
    return both / either.clamp(min=1e-6)
