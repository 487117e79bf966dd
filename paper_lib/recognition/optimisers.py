"""Optimisers and the schedule of fine-tuning (notebook 03)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Rates:
    """Learning rates of encoder and head, and how the encoder's matrices are stepped."""

    encoder: float  # 0 leaves it frozen: the control
    head: float
    muon: bool = False
    beta2: float = 0.999  # Adam's memory of squared gradients
    weight_decay: float = 0.0


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for matrices, in single precision.

    It is torch's `Muon` with `match_rms_adamw`. But torch's own makes the momentum orthogonal
    in bfloat16, which is ten times slower than all the rest of a step on processors that have no
    such arithmetic, and rounds otherwise on those that have.
    """

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for matrix in (p for p in group["params"] if p.grad is not None):
                average = self.state[matrix].setdefault("average", torch.zeros_like(matrix))
                average.lerp_(matrix.grad, 1 - group["momentum"])
                # (Nesterov's momentum)
                direction = orthogonal(matrix.grad.lerp(average, group["momentum"]))
                matrix.sub_(direction, alpha=group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


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


def warm_cosine(
    optimiser: torch.optim.Optimizer, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate rises along a line over the share `warmup` of all `steps`.

    Then it falls along half a cosine to 0.
    """
    rise = warmup * steps

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def optimisers(
    trained: list[nn.Parameter], head: nn.Module, rates: Rates
) -> list[torch.optim.Optimizer]:
    """AdamW for the parameters `trained` of the encoder and for the head.

    With `rates.muon` Muon steps the encoder's matrices with its rate, and AdamW the rest with the
    head's rate (Jordan et al., 2024: momentum, made orthogonal by a few Newton-Schulz steps).
    """
    matrices = [p for p in trained if rates.muon and p.ndim == 2 and min(p.shape) >= 64]
    others = [p for p in trained if not any(p is m for m in matrices)]
    groups = [
        {"params": others, "lr": rates.head if matrices else rates.encoder},
        {"params": head.parameters(), "lr": rates.head},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, rates.beta2), weight_decay=rates.weight_decay)
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, lr=rates.encoder)]
