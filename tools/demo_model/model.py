"""The demo model in PyTorch: a small version of Imp's architecture, with Imp's parameter names.

In: pixels (B, 3, 196, 196) scaled to -1..1 and token ids. Out: embeddings of the picture's 196 patches, and logits.
`Imp.state_dict()` is an Imp checkpoint in the newer Phi layout: the same SigLIP tower without post-LayerNorm, the same
mlp2x_gelu projector, the same Phi decoder (parallel attention and MLP, partial rotary embedding, biases everywhere).
This file does not know the training (`train`) or how a checkpoint becomes a bundle (`impchat.models.convert`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTING, POINTERS = (2, 3), 2  # the decoder layers with pointing heads, and the number of these heads in each


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of the demo model. All heads have 32 dimensions, of which the decoder rotates 16."""

    eyes: int = 160
    eyes_layers: int = 4
    eyes_mlp: int = 640
    language: int = 192
    language_layers: int = 5
    language_mlp: int = 576
    vocabulary: int = 2048
    image: int = 196
    patch: int = 14
    head: int = 32
    rotary: int = 16


class _EyesAttention(nn.Module):
    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            p(x).view(batch, length, -1, self.head).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        weights = (q @ k.transpose(-1, -2) * self.head**-0.5).softmax(-1).to(v.dtype)
        seen: Tensor = self.out_proj((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return seen


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class _EyesLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(size.eyes, eps=1e-6), nn.LayerNorm(size.eyes, eps=1e-6)
        self.self_attn = _EyesAttention(size.eyes, size.head)
        self.mlp = _Mlp(size.eyes, size.eyes_mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class _Embeddings(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, size.eyes, size.patch, size.patch)
        self.position_embedding = nn.Embedding((size.image // size.patch) ** 2, size.eyes)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight


class VisionTower(nn.Module):
    """SigLIP without pooling head: pixels (B, 3, S, S) -> features (B, patches, tower width)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embeddings = _Embeddings(size)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(_EyesLayer(size) for _ in range(size.eyes_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.embeddings(pixels)
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            x = layer(x)
        return x


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of the first `cos.shape[-1]` dimensions, in halves as in GPT-NeoX and Phi."""
    turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    a, b = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-b, a], -1) * sin, kept], -1)


class _PhiAttention(nn.Module):
    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.dense = (nn.Linear(width, width) for _ in range(4))
        self.head = head

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], prefix: int, branches: int, pointing: list[Tensor] | None
    ) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            p(x).view(batch, length, -1, self.head).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, *turn) * self.head**-0.5, _rotate(k, *turn)
        q, k = q.to(v.dtype), k.to(v.dtype)  # the rotation is computed in float32
        first_k, first_v = k[:, :, :prefix], v[:, :, :prefix]
        first = (q[:, :, :prefix] @ first_k.transpose(-1, -2)).masked_fill(_later(prefix, x), -torch.inf)
        seen = first.softmax(-1).to(v.dtype) @ first_v
        # Each branch attends to the shared prefix and to itself.
        own = (length - prefix) // branches
        branch_q, branch_k, branch_v = (
            t[:, :, prefix:].reshape(batch, -1, branches, own, self.head) for t in (q, k, v)
        )
        far = q[:, :, prefix:] @ first_k.transpose(-1, -2)
        if pointing is not None:
            pointing.append(far[:, :POINTERS])
        near = (branch_q @ branch_k.transpose(-1, -2)).masked_fill(_later(own, x), -torch.inf)
        weights = torch.cat([far, near.flatten(2, 3)], -1).softmax(-1).to(v.dtype)
        beside = weights[..., prefix:].view(near.shape) @ branch_v
        asked = weights[..., :prefix] @ first_v + beside.flatten(2, 3)
        out: Tensor = self.dense(torch.cat([seen, asked], 2).transpose(1, 2).reshape(batch, length, width))
        return out


def _later(length: int, like: Tensor) -> Tensor:
    """True where a position (row) must not attend: to later positions."""
    return torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)


class _PhiLayer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(size.language, eps=1e-5)
        self.self_attn = _PhiAttention(size.language, size.head)
        self.mlp = _Mlp(size.language, size.language_mlp)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], prefix: int, branches: int, pointing: list[Tensor] | None
    ) -> Tensor:
        y = self.input_layernorm(x)
        out: Tensor = x + self.self_attn(y, turn, prefix, branches, pointing) + self.mlp(y)
        return out


class _Tower(nn.Module):
    """The nesting of Imp's tensor names: vision_tower.vision_tower.vision_model."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = VisionTower(size)


class _Model(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocabulary, size.language)
        self.layers = nn.ModuleList(_PhiLayer(size) for _ in range(size.language_layers))
        self.final_layernorm = nn.LayerNorm(size.language, eps=1e-5)
        self.vision_tower = _Tower(size)
        self.mm_projector = nn.Sequential(
            nn.Linear(size.eyes, size.language), nn.GELU(), nn.Linear(size.language, size.language)
        )
        nn.init.normal_(self.embed_tokens.weight, std=0.02)


class Imp(nn.Module):
    """The whole model; `state_dict()` has the tensor names of an Imp checkpoint."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.model = _Model(size)
        self.lm_head = nn.Linear(size.language, size.vocabulary)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    @property
    def eyes(self) -> VisionTower:
        """The vision tower."""
        tower: VisionTower = self.model.vision_tower.vision_tower.vision_model  # type: ignore[assignment]
        return tower

    def embed(self, features: Tensor, ids: Tensor, pictures: Tensor) -> Tensor:
        """The decoder's input (B, T, width): token embeddings of `ids` (B, T), replaced in order by the projected
        `features` (N, patches, tower width) of the batch's N pictures where `pictures` (B, T, bool) is True."""
        x: Tensor = self.model.embed_tokens(ids)
        if features.numel():
            x = x.clone()
            x[pictures] = self.model.mm_projector(features).flatten(0, 1).to(x.dtype)
        return x

    def decode(self, x: Tensor, prefix: int, branches: int) -> tuple[Tensor, Tensor]:
        """The decoder's last states (B, prefix + branches * own, width), ready for `lm_head`, and the attention scores
        (B, pointing heads, branches * own, prefix) of its pointing heads for the prefix.

        `x` holds `prefix` shared positions (system text and picture), then `branches` conversations of equal length
        that continue the prefix and do not attend to each other, so a picture is computed once for many questions."""
        length = x.shape[1]
        own = (length - prefix) // branches
        half = self.size.rotary // 2
        at = torch.cat([torch.arange(prefix), torch.arange(prefix, prefix + own).repeat(branches)]).to(x.device)
        angle = at[:, None] * (10000.0 ** (-torch.arange(half, device=x.device) / half)).repeat(2)
        turn = (angle.cos(), angle.sin())
        pointing: list[Tensor] = []
        for i, layer in enumerate(self.model.layers):
            x = layer(x, turn, prefix, branches, pointing if i in POINTING else None)
        out: Tensor = self.model.final_layernorm(x)
        return out, torch.cat(pointing, 1)
