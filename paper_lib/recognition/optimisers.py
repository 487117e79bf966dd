"""Optimisers and the schedule of fine-tuning (notebook 03)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..core.muon import Muon, apart


@dataclass(frozen=True)
class Rates:
    """Learning rates of encoder and head, and how the encoder's matrices are stepped."""

    encoder: float  # 0 leaves it frozen: the control
    head: float
    muon: bool = False
    beta2: float = 0.999  # Adam's memory of squared gradients
    weight_decay: float = 0.0


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
    matrices, others = apart(trained, 64) if rates.muon else ([], trained)
    groups = [
        {"params": others, "lr": rates.head if matrices else rates.encoder},
        {"params": head.parameters(), "lr": rates.head},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, rates.beta2), weight_decay=rates.weight_decay)
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, lr=rates.encoder)]
