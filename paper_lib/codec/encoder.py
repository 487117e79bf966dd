"""The encoder that the paper freezes and then fine-tunes, and a faster way through it.

Notebooks 02 and 03. L3AC's own modules hold the weights. What runs is the same arithmetic, arranged
so that a small network is not slowed down by passes over memory (the equality is a test, the gain
is in `benchmarks/`):

* A residual unit is depthwise convolution, channel norm, linear, Snake, GRN, linear. Snake is s +
  sin^2(alpha s) / alpha, and GRN, as l3ac has it, is affine to rounding. So all of it folds into
  ``x + k + A v + P sin^2(Z v + z)`` with v the normalised output of the depthwise convolution.
* Without gradients the unit walks over time in tiles that stay in the processor's cache.
* Attention goes by blocks of the window without padding a short input to a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from l3ac.en_codec import EnCodec
from l3ac.local_trans import LocalEncoder
from l3ac.tconv.base import TrendPool
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import remove_parametrizations

TILE = 2048  # moments of 32 channels that one pass holds in the cache


class Encoder(nn.Module):
    """The codec's `encoder` and `en_encoder`: audio to embedding, no quantizer, no decoder."""

    def __init__(self, network: EnCodec):
        super().__init__()
        self.hop = network.mc.hop_length
        self.encoder = network.encoder
        self.en_encoder = network.en_encoder
        self.prepared: dict | None = None  # what `bake` has worked out once and for all

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, samples) at 16 kHz -> (batch, frames, 128).

        The end is zero-padded to a whole frame. What `lower` has made of audio, (batch, channels,
        frames), goes on from there.
        """
        x = self.lower(x) if x.ndim == 2 else x
        units, last = self.encoder.blocks[-2:]
        return attend(self.en_encoder, last(through_units(units, x, self.prepared)), self.prepared)

    def lower(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, channels, frames): down to the frame rate.

        A fifth of the (shipped) weights, but most of the work.
        """
        x = F.pad(audio, (0, -audio.shape[-1] % self.hop))[:, None, :]
        first, units, down, *rest = self.encoder.blocks[:-2]
        learns = audio.requires_grad or any(p.requires_grad for p in self.first_parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            x = through_units(units, first_block(first, x), self.prepared)
        x = down(x)
        for units, down in zip(rest[::2], rest[1::2], strict=True):
            x = down(through_units(units, x, self.prepared))
        return x

    def first_parameters(self) -> list[nn.Parameter]:
        """The weights at the rate of the audio: a hundredth of all, four fifths of the work."""
        return list(self.encoder.blocks[:2].parameters())

    def upper_parameters(self) -> list[nn.Parameter]:
        """The weights above `lower`: the last units of the encoder, and the attention."""
        return [*self.encoder.blocks[-2:].parameters(), *self.en_encoder.parameters()]


def bake(module: nn.Module) -> nn.Module:
    """Fold the weight norm into plain weights, in place: same output, cheaper to run.

    An `Encoder` also keeps its folded units and attention bias, so its weights must not change
    again.
    """
    for child in module.modules():
        if hasattr(child, "parametrizations"):
            for name in list(child.parametrizations):
                remove_parametrizations(child, name, leave_parametrized=True)
    if isinstance(module, Encoder):
        module.prepared = {}
    return module


def _once(prepared: dict | None, owner: nn.Module, device: torch.device, make):
    """`make()`, or what it returned the first time for this owner and device, if that is kept."""
    if prepared is None or torch.is_grad_enabled():
        return make()
    key = (id(owner), str(device))
    if key not in prepared:
        prepared[key] = make()
    return prepared[key]


# --- residual units -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folded:
    """A residual unit as ``x + k + A v + P sin^2(Z v + z)``; matrices (out, in), vectors (out,)."""

    A: torch.Tensor
    P: torch.Tensor
    Z: torch.Tensor
    k: torch.Tensor
    z: torch.Tensor


def fold(unit: nn.Module) -> Folded:
    """The matrices of l3ac's `ConvUnit`, as differentiable functions of its parameters."""
    (weight, bias), (last, last_bias) = map(affine, (unit.pw_conv1, unit.pw_conv2))
    if not isinstance(unit.norm, nn.Identity):  # its scale and offset belong to the first matrix
        weight, bias = weight * unit.norm.weight, bias + weight @ unit.norm.bias
    alpha, gain = unit.act.alpha[0, 0], 1 + unit.grn.gamma[0]
    out = last * gain
    return Folded(
        A=out @ weight,
        P=out / (alpha + 1e-8),
        Z=alpha[:, None] * weight,
        k=out @ bias + last @ unit.grn.beta[0] + last_bias,
        z=alpha * bias,
    )


def affine(linear: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(weight, bias) of a linear layer, or of one that an adapter wraps.

    peft calls the weight below its adapter `weight`, too: that would be without it. What an affine
    map does to nought and to the unit vectors is all of it.
    """
    if getattr(linear, "disable_adapters", False):
        linear = linear.base_layer
    if isinstance(linear, nn.Linear):
        return linear.weight, linear.bias
    inputs = linear.in_features
    points = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).to(linear.weight.device)
    bias, *columns = linear(points)
    return (torch.stack(columns) - bias).T, bias


def through_units(
    units: nn.Sequential, x: torch.Tensor, prepared: dict | None = None
) -> torch.Tensor:
    """(batch, channels, time) through residual units, each folded."""
    for residual in units:
        unit = residual.module
        v, f = unit.dw_conv(x), _once(prepared, unit, x.device, partial(fold, unit))
        normed = not isinstance(unit.norm, nn.Identity)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            v = v.transpose(1, 2)
            v = F.layer_norm(v, v.shape[-1:], eps=float(unit.norm.eps)) if normed else v
            side = F.linear(v, f.A, f.k) + F.linear(torch.sin(F.linear(v, f.Z, f.z)).square(), f.P)
            x = x + side.transpose(1, 2)
        else:
            x = torch.stack([_tiled(unit, f, one, w, normed) for one, w in zip(x, v, strict=True)])
    return x


def _tiled(
    unit: nn.Module, f: Folded, x: torch.Tensor, v: torch.Tensor, normed: bool
) -> torch.Tensor:
    """(channels, time) x and its depthwise convolution v -> the unit's output, tile by tile."""
    out, step = x + f.k[:, None], max(256, TILE * 32 // len(x))
    z = f.z[:, None]
    for a in range(0, x.shape[1], step):
        part = v[:, a : a + step]
        if normed:
            part = part - part.mean(0)
            part *= (part.square().mean(0) + float(unit.norm.eps)).rsqrt_()
        inner = torch.addmm(z, f.Z, part).sin_().square_()
        out[:, a : a + step].addmm_(f.A, part).addmm_(f.P, inner)
    return out


# --- the first block: trends (Eq. 1) and two pointwise convolutions -------------------------------


def first_block(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """l3ac's first block: (batch, 1, samples) -> (batch, channels, samples)."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return block(x)
    trends = [
        trend(x, branch[0].kernel_size) if isinstance(branch[0], TrendPool) else branch[0](x)
        for branch in block.blocks
    ]
    filters = [branch[1] for branch in block.blocks]
    h = torch.cat([f(t) for f, t in zip(filters, trends, strict=True)], 1)
    w1, b1 = block.conv_1.weight[..., 0], block.conv_1.bias[:, None]
    w2, b2 = block.conv_2.weight[..., 0], block.conv_2.bias[:, None]
    out = torch.empty(len(x), len(w2), x.shape[-1], dtype=x.dtype)
    for one, signal, made in zip(h, x, out, strict=True):
        for a in range(0, x.shape[-1], TILE):
            part = slice(a, a + TILE)
            inner = F.gelu(torch.addmm(b1, w1, one[:, part]))
            made[:, part] = torch.addmm(b2, w2[:, :-1], inner).addmm_(w2[:, -1:], signal[:, part])
    return out


def trend(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """Eq. 1: the mean of the maximum of the absolute signal, each over `kernel` samples around."""
    if kernel == 1:
        return x
    half, n = kernel // 2, x.shape[-1]
    x = _windows(F.pad(x.abs(), (half, half)), kernel, torch.maximum)
    return _windows(F.pad(x, (half, half)), kernel, torch.add)[..., :n] / kernel


def _windows(x: torch.Tensor, size: int, join) -> torch.Tensor:
    """`join` over every window of `size` samples, by doubling: window 2 n is two windows of n."""
    wide, width, out, taken = x, 1, None, 0
    while True:
        if size & width:  # the window is made of powers of two, one after the other
            if out is None:
                out = wide
            else:
                length = min(out.shape[-1], wide.shape[-1] - taken)
                out = join(out[..., :length], wide[..., taken : taken + length])
            taken += width
        if taken == size:
            return out
        wide, width = join(wide[..., :-width], wide[..., width:]), 2 * width


# --- attention ------------------------------------------------------------------------------------


def attend(module: nn.Module, x: torch.Tensor, prepared: dict | None = None) -> torch.Tensor:
    """l3ac's local attention: (batch, channels, frames) -> (batch, frames, channels)."""
    if not isinstance(module, LocalEncoder) or module.local_trans.dynamic_pos_bias is None:
        return module(x)
    transformer = module.local_trans
    x, window = x.transpose(1, 2), transformer.window_size
    bias = _once(prepared, transformer, x.device, partial(_bias, transformer, x.device))
    for attention, feed_forward in transformer.layers:
        x = _local(attention, x, bias, window) + x
        x = feed_forward(x) + x
    return x


def _bias(transformer: nn.Module, device: torch.device) -> torch.Tensor:
    """(1, heads, window, 2 window): what is added to the scores; minus infinity for the future."""
    window = transformer.window_size
    future = torch.ones(window, 2 * window, dtype=torch.bool, device=device).triu(window + 1)
    return transformer.dynamic_pos_bias(window, 2 * window).masked_fill(future, float("-inf"))[None]


def _local(attention: nn.Module, x: torch.Tensor, bias: torch.Tensor, window: int) -> torch.Tensor:
    """Each block of `window` frames attends to itself, up to the present, and to the one before.

    And to a `prefix` (2, heads, length, size) of keys and values, where an adapter has put one.
    """
    heads, (batch, n, _) = attention.heads, x.shape
    prefix = getattr(attention, "prefix", None)
    qkv = attention.to_qkv(attention.norm(x)).view(batch, n, 3, heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv  # (batch, heads, frames, size)
    out = []
    for a in range(0, n, window):
        length, past = min(window, n - a), min(a, window)
        seen = slice(a - past, a + length)
        mask = bias[..., :length, window - past : window + length].to(q.dtype)
        keys, values = k[:, :, seen], v[:, :, seen]
        if prefix is not None:
            keys, values = (
                torch.cat([one.expand(batch, -1, -1, -1), part], 2)
                for one, part in zip(prefix, (keys, values), strict=True)
            )
            mask = F.pad(mask, (prefix.shape[2], 0))
        part = F.scaled_dot_product_attention(q[:, :, a : a + length], keys, values, mask)
        out.append(part)
    return attention.to_out(torch.cat(out, 2).transpose(1, 2).reshape(batch, n, -1))
