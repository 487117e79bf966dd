"""The masked model as a generator: a gap filled in a few rounds. Notebook 23.

After MaskGIT (Chang et al., 2022): all tokens of the gap are hidden; in each round the model
guesses them all, the guesses that it is surest of stay, and the rest is hidden again. (A model that
was trained with a quarter of single tokens hidden has not met a gap: it does what it can.)
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..core.random import generator_for
from .model import TokenModel


@torch.inference_mode()
def filled(
    net: TokenModel,
    tokens: np.ndarray,
    gap: tuple[int, int],
    frames: int,
    key: tuple,
    rounds: int = 12,
    temperature: float = 1.0,
) -> np.ndarray:
    """(codebooks, T) with the frames `gap` (first, behind the last) made anew.

    frames: so many around the gap the model hears; no more than it was trained on.

    Each round draws a value for every hidden token (temperature 0: takes the likeliest), and keeps
    so many of the likeliest draws that the share which is still hidden falls along a cosine to 0.
    key: of the draws.
    """
    rng = generator_for(*key)
    begin = min(max(0, (gap[0] + gap[1] - frames) // 2), max(0, tokens.shape[1] - frames))
    around = slice(begin, begin + frames)
    found = torch.from_numpy(tokens[:, around].astype(np.int64))[None].clone()
    hidden = torch.zeros_like(found, dtype=torch.bool)
    hidden[..., gap[0] - begin : gap[1] - begin] = True
    many = int(hidden.sum())
    for number in range(rounds):
        logits = net.eval()(found, hidden)
        sure = torch.full(found.shape, -math.inf)
        for i, one in enumerate(logits):
            chance = torch.softmax(one[0], 1)
            if temperature:
                noise = torch.from_numpy(rng.gumbel(size=tuple(one[0].shape)))
                drawn = (one[0] / temperature + noise).argmax(1)
            else:
                drawn = chance.argmax(1)
            asked = hidden[0, i]
            found[0, i, asked] = drawn[asked]
            sure[0, i, asked] = chance.gather(1, drawn[:, None])[:, 0][asked]
        left = int(many * math.cos(math.pi / 2 * (number + 1) / rounds))
        keep = int(hidden.sum()) - (left if number + 1 < rounds else 0)
        best = sure.flatten().topk(max(1, keep)).indices
        hidden.view(-1)[best] = False
    out = tokens.copy()
    out[:, around] = found[0].numpy()
    return out
