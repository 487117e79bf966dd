"""More to learn from than thirteen bits a clip (appendix A3): another network, other chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ..core import machine
from ..core.errors import PaperError
from ..core.random import generator_for
from .features import pool, time_statistics
from .model import EffectRecognizer


@dataclass(frozen=True, eq=False)
class Beside:
    """What a fine-tuning may be given beside clips and labels."""

    targets: np.ndarray | None = None  # (clips, 13), to learn instead of the labels
    slices: np.ndarray | None = None  # (clips,) of which slice each is a rendering (mixed, pairs)
    frames: np.ndarray | None = None  # (training clips, moments, features) to say (dense)


def check(mixed: bool, pairs: bool, dense: float, beside: Beside, accumulation: int) -> None:
    """`PaperError` where what a recipe asks for is not given, or cannot be had."""
    if dense and beside.frames is None:
        raise PaperError("a dense training needs the frames that are to be said.")
    if (mixed or pairs) and beside.slices is None:
        raise PaperError("to mix or pair clips it has to be known of which slice each is.")
    if (mixed or dense) and (machine.processes() > 1 or accumulation > 1):
        raise PaperError("a mixed or dense training wants one process and whole batches.")


def mixed(one: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """`share` (batch,) of the one, and the rest of the other."""
    share = share.view(-1, *(1,) * (one.ndim - 1))
    return share * one + (1 - share) * other


def partners(slices: np.ndarray | None, train: np.ndarray, seed: int) -> Callable[..., np.ndarray]:
    """A function of rows and a key: for each another training clip of the same slice, drawn.

    Where there is no other one: itself.
    """
    if slices is None:
        return lambda rows, *key: rows
    of_slice = {s: train[slices[train] == s] for s in np.unique(slices[train])}

    def drawn(row: int, key: tuple) -> int:
        others = of_slice[slices[row]]
        others = others[others != row]
        return generator_for(seed, *key, int(row)).choice(others) if len(others) else row

    return lambda rows, *key: np.array([drawn(row, key) for row in rows])


class Dense:
    """A line from the encoder's frames to what another network makes of the clip at that moment."""

    def __init__(self, model: EffectRecognizer, frames: np.ndarray, train: np.ndarray):
        self.model, self.frames = model, frames
        self.place = {int(row): i for i, row in enumerate(train)}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            line = torch.nn.Linear(model.network["feature_dim"], frames.shape[-1])
        # (at once where the model will be: a checkpoint brings its optimiser's state there)
        self.line = line.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(
        self, x: torch.Tensor, rows: np.ndarray, begins: np.ndarray, share: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (batch, 13) of excerpts, and the mean squared error of the line.

        begins, share: where in its clip each excerpt begins, and how much of it there is (0: all).
        """
        states = self.model.encoder(x)  # (batch, frames, channels)
        logits = self.model.head(pool(time_statistics(states), self.model.pooling))
        middle = (np.arange(states.shape[1]) + 0.5) / states.shape[1] * (share or 1.0)
        moments = ((begins[:, None] + middle) * self.frames.shape[1]).astype(int)
        own = np.array([self.place[int(row)] for row in rows])
        wanted = self.frames[own[:, None], moments.clip(max=self.frames.shape[1] - 1)]
        target = torch.from_numpy(wanted.astype(np.float32)).to(x.device)
        return logits, F.mse_loss(self.line(states), target)
