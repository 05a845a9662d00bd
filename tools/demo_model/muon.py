"""Muon, an optimiser with orthogonal updates of matrices (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/).

In: the matrices of a model and their gradients. Out: updated matrices. It trains the demo in about half the steps of
AdamW; PyTorch's own version multiplies in bfloat16, which CPUs without AMX emulate a hundred times slower.
This file does not know what the matrices mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """An approximation of the nearest orthogonal matrix by the quintic Newton-Schulz iteration of the source above."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum 0.95 and orthogonalised updates; `lr` is the spectral norm of an update."""

    def __init__(
        self, parameters: Iterable[dict[str, Any]], lr: float = 0.02, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update. In a process group each process computes its share of the updates and sends it to the others."""
        group_of = [(p, g) for g in self.param_groups for p in g["params"] if p.grad is not None]
        shared = dist.is_initialized()
        turn, of = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        updates = []
        for i, (parameter, group) in enumerate(group_of):
            momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1 - group["momentum"])
            if i % of == turn:
                updates.append(orthogonal(parameter.grad.lerp(momentum, group["momentum"])))
            else:
                updates.append(torch.zeros_like(parameter))
        if shared:
            flat = torch.cat([u.flatten() for u in updates])
            dist.all_reduce(flat)
            parts = flat.split([u.numel() for u in updates])
            updates = [part.view_as(update) for part, update in zip(parts, updates, strict=True)]
        for (parameter, group), update in zip(group_of, updates, strict=True):
            scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
            parameter.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)
