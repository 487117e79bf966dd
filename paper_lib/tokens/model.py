"""A masked language model on codec tokens, on two scales. Notebook 23.

After the paper on Mega-AudioFormer (source 004). The tokens of a frame are one patch. A global
encoder (a transformer) reads the patches; a local encoder (two layers) reads the tokens of one
patch and what the global one says of it. Both know places by rotation (RoPE), not by addition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Size:
    """How large a model is. The paper's global encoder: 768 wide, 12 layers; its local one: 2.

    (Heads, and how wide the local encoder is, the paper does not say: they are ours.)
    """

    width: int
    layers: int
    heads: int
    local_width: int = 32
    local_layers: int = 2
    local_heads: int = 2


SIZES = {
    "tiny": Size(24, 1, 2, 12, 1, 1),
    "small": Size(96, 4, 4),
    "medium": Size(192, 6, 6, 48, 2, 4),
    "paper": Size(768, 12, 12, 256, 2, 4),
}


def rotated(x: torch.Tensor) -> torch.Tensor:
    """(..., places, size) -> the same, place m's pairs of numbers turned by m times their angles.

    RoPE (Su et al., 2024): numbers 2 i and 2 i + 1 by m / 10,000^(2 i / size). The product of two
    such vectors then depends on the difference of their places alone.
    """
    places, size = x.shape[-2:]
    rates = 10_000.0 ** (-torch.arange(0, size, 2, device=x.device) / size)
    angle = torch.arange(places, device=x.device)[:, None] * rates
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(turned, -1).flatten(-2)


class Layer(nn.Module):
    """Attention and a feed-forward network, each behind a norm and added to what comes in."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, places, width); mask: (places, places), True where one sees the other."""
        batch, places, width = x.shape
        qkv = self.to_qkv(self.norm(x)).view(batch, places, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (batch, heads, places, size)
        seen = F.scaled_dot_product_attention(rotated(q), rotated(k), v, mask)
        x = x + self.to_out(seen.transpose(1, 2).reshape(batch, places, width))
        return x + self.feed_forward(self.norm_2(x))


class TokenModel(nn.Module):
    """Tokens (batch, codebooks, frames) -> logits of each codebook; or its global states.

    look_ahead: frames that the global encoder sees of what comes (None: all of it). Its first
    layer alone looks ahead, since what each layer sees adds up.
    """

    def __init__(self, codebooks: tuple[int, ...], size: Size, look_ahead: int | None = None):
        super().__init__()
        self.codebooks, self.look_ahead = codebooks, look_ahead
        # each codebook's values, and one more that stands for a hidden token
        self.embed = nn.ModuleList(nn.Embedding(n + 1, size.local_width) for n in codebooks)
        together = len(codebooks) * size.local_width
        self.to_global = nn.Linear(together, size.width)
        self.layers = nn.ModuleList(Layer(size.width, size.heads) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.to_local = nn.Linear(size.width, together)
        self.local = nn.ModuleList(
            Layer(size.local_width, size.local_heads) for _ in range(size.local_layers)
        )
        self.local_norm = nn.LayerNorm(size.local_width)
        self.heads = nn.ModuleList(nn.Linear(size.local_width, n) for n in codebooks)

    def keep_global(self) -> None:
        """Leave out what only a masked model needs: the local encoder and what follows."""
        del self.to_local, self.local, self.local_norm, self.heads

    def embedded(self, tokens: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, codebooks, frames), hidden ones marked True -> (batch, frames, codebooks, w)."""
        each = []
        for i, table in enumerate(self.embed):
            own = tokens[:, i].long()
            own = own if hidden is None else own.masked_fill(hidden[:, i], self.codebooks[i])
            each.append(table(own))
        return torch.stack(each, 2)

    def states(self, tokens: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, frames, width) of the global encoder."""
        return self.norm(self.by_layer(self.embedded(tokens, hidden))[-1])

    def by_layer(self, embedded: torch.Tensor) -> list[torch.Tensor]:
        """What goes into the global encoder's first layer, and what comes out of each."""
        found = [self.to_global(embedded.flatten(2))]
        places = torch.arange(embedded.shape[1], device=embedded.device)
        for number, layer in enumerate(self.layers):
            mask = None
            if self.look_ahead is not None:
                ahead = self.look_ahead if number == 0 else 0
                mask = places[None] <= places[:, None] + ahead
            found.append(layer(found[-1], mask))
        return found

    def forward(self, tokens: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """Logits (batch, frames, values) of each codebook, hidden tokens (marked True) unseen."""
        embedded = self.embedded(tokens, hidden)
        batch, frames, books, width = embedded.shape
        said = self.to_local(self.norm(self.by_layer(embedded)[-1])).view(
            batch, frames, books, width
        )
        x = (embedded + said).flatten(0, 1)  # (a patch is a sequence of its own)
        for one in self.local:
            x = one(x)
        x = self.local_norm(x).view(batch, frames, books, width)
        return [head(x[:, :, i]) for i, head in enumerate(self.heads)]


def hide(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> torch.Tensor:
    """Which tokens are hidden: True for `share` of them, drawn for each by itself."""
    return torch.from_numpy(rng.random(shape) < share)


def loss_of(logits: list[torch.Tensor], tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (nats) over hidden tokens alone, whichever codebook they are of."""
    each = [
        F.cross_entropy(one[hidden[:, i]], tokens[:, i][hidden[:, i]].long(), reduction="sum")
        for i, one in enumerate(logits)
    ]
    return torch.stack(each).sum() / hidden.sum().clamp_min(1)


# --- what it costs --------------------------------------------------------------------------------


def macs(places: int, width: int, layers: int) -> dict[str, int]:
    """Multiplications of transformer layers on so many places: linear in them, and quadratic.

    12 w^2 a place and layer for its matrices; 2 w a pair of places for attention.
    """
    return {"matrices": 12 * width**2 * places * layers, "pairs": 2 * width * places**2 * layers}


def macs_of(size: Size, codebooks: tuple[int, ...], frames: int) -> dict[str, dict[str, int]]:
    """The same of the model on two scales, and of a flat one, whose places are single tokens.

    With the matrices between both scales, and those that answer.
    """
    books = len(codebooks)
    one = macs(frames, size.width, size.layers)
    local = macs(books, size.local_width, size.local_layers)
    patches = {name: one[name] + frames * local[name] for name in one}
    patches["matrices"] += frames * 2 * books * size.local_width * size.width
    patches["matrices"] += frames * size.local_width * sum(codebooks)
    flat = macs(frames * books, size.width, size.layers)
    flat["matrices"] += frames * size.width * sum(codebooks)
    return {"patches": patches, "flat": flat}
