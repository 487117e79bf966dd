"""A network's training step on a GPU as one CUDA graph (`paper finetune`, docs/machines.md).

A small network's step is hundreds of short kernels, and starting each takes the processor longer
than the GPU needs for it. A graph is recorded once and starts them all at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class _Whole(nn.Module):
    """A module of its own around `model`: recording replaces the `forward` of what it is given."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


def by_graph(model: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """`model` as a function whose training steps are replayed, a graph for each shape of input.

    On a CPU, out of training and under autocast it is the model itself. A step may call it once
    only: a second backward pass writes over the gradients of the first.
    """
    graphs: dict[torch.Size, nn.Module] = {}

    def call(x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cuda" or not model.training or torch.is_autocast_enabled("cuda"):
            return model(x)
        if x.shape not in graphs:
            whole = _Whole(model).train()
            with torch.random.fork_rng([x.device]):  # (trial passes draw dropout, too)
                graphs[x.shape] = torch.cuda.make_graphed_callables(whole, (x.clone(),))
        return graphs[x.shape](x)

    return call
