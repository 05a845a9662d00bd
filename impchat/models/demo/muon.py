"""Muon, an optimiser whose steps for a matrix are orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

In: the matrices of a model and their gradients. Out: updated matrices. It learns the demo in about half the steps of
AdamW; PyTorch's own version multiplies in bfloat16, which CPUs without AMX emulate a hundred times slower.
This file does not know what the matrices mean.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest (roughly) orthogonal matrix by the quintic Newton-Schulz iteration of the source above."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum 0.95 whose update is made orthogonal; `lr` is the update's spectral size."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]).flatten(1)).view_as(parameter)
                scale = max(1.0, parameter.shape[0] / parameter[0].numel()) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)
