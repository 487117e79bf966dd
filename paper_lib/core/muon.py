"""Muon, an optimiser for matrices (notebook 03, `paper pretrain --muon`)."""

from __future__ import annotations

import math

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, in single precision.

    It is torch's `Muon` with `match_rms_adamw`. But torch's own makes the momentum orthogonal
    in bfloat16, which is ten times slower than all the rest of a step on processors that have no
    such arithmetic, and rounds otherwise on those that have.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                if group["weight_decay"]:
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                # (Nesterov's momentum)
                direction = orthogonal(matrix.grad.lerp(average, group["momentum"]))
                matrix.sub_(direction, alpha=group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


def apart(
    parameters: list[nn.Parameter], least: int
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices of at least `least` rows and columns, for Muon; and the rest, for AdamW."""
    matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) >= least]
    return matrices, [p for p in parameters if not any(p is m for m in matrices)]


def orthogonal(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Nearly U V^T of `matrix` = U S V^T.

    Its singular values are brought to about 1 by Newton-Schulz steps.
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):  # coefficients of Jordan et al.: a x + b (x x^T) x + c (x x^T)^2 x
        gram = x @ x.T
        inner = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, inner, x, beta=3.4445)
    return x.T if matrix.shape[0] > matrix.shape[1] else x
