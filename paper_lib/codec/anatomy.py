"""What the codec is made of, and which samples a frame can see. Notebook 06.

Sizes and cost; the receptive field by arithmetic, by perturbation, by gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from l3ac.en_codec import EnCodec
from l3ac.layers import GRN
from torch import nn
from torch.nn import functional as F

from ..core.errors import PaperError
from ..sound import audio
from . import l3ac as codec
from .encoder import Encoder

RATE = audio.CODEC_RATE


# --- size, rate, cost -----------------------------------------------------------------------------


def sizes(networks: dict[str, EnCodec]) -> pd.DataFrame:
    """One row a network: parameters of each part, hop, tokens/s, codebook, bit/s, window."""
    rows = []
    for name, network in networks.items():
        mc = network.mc
        book = int(np.prod(mc.vq_config["levels"]))
        rate = RATE / mc.hop_length
        row = {"network": name} | codec.parameter_counts(network)
        row |= {
            "fine_tuned": sum(p.numel() for p in Encoder(network).parameters()),
            "hop": mc.hop_length,
            "tokens_per_s": rate,
            "codebook": book,
            "bit_per_s": rate * np.log2(book),
            "window": mc.en_coder_window_size,  # of the attention, in frames
            "channels": mc.feature_dim,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def gmacs(module: nn.Module, *inputs: torch.Tensor) -> float:
    """Multiply-accumulates (10^9) of one forward pass: convolutions and matrix products.

    Half of what torch's FlopCounterMode counts. Without oneDNN, whose recurrent layers are
    one call that the counter does not know; plain torch shows it their matrix products.
    """
    from torch.utils.flop_counter import FlopCounterMode

    before = torch.backends.mkldnn.set_flags(False)[0]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs)
    finally:
        torch.backends.mkldnn.set_flags(before)
    return counter.get_total_flops() / 2e9


def gmacs_by_class(module: nn.Module, samples: int) -> float:
    """The same as `ptflops` counts by default: by the class of each layer.

    A weight-normed layer has a class of its own and is overlooked.
    """
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        module,
        (samples,),
        as_strings=False,
        print_per_layer_stat=False,
        verbose=False,
        backend="pytorch",
    )
    return macs / 1e9


def gmacs_of_shape(module: nn.Module, *shape: int) -> float:
    """`gmacs` for an input of this shape, on torch's "meta" device, in place.

    That holds shapes without numbers, so that counting costs nothing.
    """
    return gmacs(module.eval().to("meta"), torch.zeros(*shape, device="meta"))


# --- receptive field by arithmetic ----------------------------------------------------------------

EVERYTHING = (-(10**9), 10**9)


def span(module: nn.Module, first: int, last: int) -> tuple[int, int]:
    """First and last input along time that outputs `first` to `last` of `module` can depend on.

    Unbounded: `EVERYTHING`. Padding is counted as input, so the ends may lie outside. A layer of a
    kind that is not listed here: `PaperError`.
    """
    if (first, last) == EVERYTHING:
        return EVERYTHING
    kind = type(module).__name__.removeprefix("Parametrized")
    match kind:
        case "Sequential":
            for child in reversed(module):
                first, last = span(child, first, last)
        case "Encoder" | "Decoder":
            first, last = span(module.blocks, first, last)
        case "Residual":
            first, last = span(module.module, first, last)
        case "ConvUnit":
            first, last = span(module.dw_conv, first, last)
        case "LegacyUnit" | "LastBlock":
            first, last = span(module.block, first, last)
        case "V3FirstBlock" | "EnhanceBlock":
            ends = [span(branch, first, last) for branch in module.blocks]
            first, last = min(a for a, _ in ends), max(b for _, b in ends)
            if kind == "EnhanceBlock" and any(
                isinstance(m, nn.InstanceNorm1d) for m in module.modules()
            ):
                return EVERYTHING  # its mean and variance are the whole clip's
        case "TrendPool":
            reach = 2 * (module.kernel_size // 2)
            first, last = first - reach, last + reach
        case "Conv1d":
            (k,), (s,), (d,) = module.kernel_size, module.stride, module.dilation
            (p,) = module.padding
            behind = getattr(module, "behind", p)  # (padding on the left, if `causal` moved it)
            first, last = first * s - behind, last * s - behind + (k - 1) * d
        case "Upsample":
            at = lambda i: int(np.floor((i + 0.5) / module.scale_factor - 0.5))
            first, last = at(first), at(last) + 1
        case "CausalTrendPool":
            first = first - 2 * (module.kernel_size - 1)
        case "LocalEncoder" | "LocalDecoder":
            window = module.local_trans.window_size
            for _ in module.local_trans.layers:  # its own block and one block back
                first = max(0, (first // window - 1) * window)
        case "Snake1d" | "Identity" | "ChannelNorm" | "GELU" | "Tanh" | "Linear":
            pass  # each moment alone
        case _:
            raise PaperError(f"how far a {kind} looks is not known here: add it to anatomy.span.")
    return (first, last) if first > EVERYTHING[0] and last < EVERYTHING[1] else EVERYTHING


def chain_span(modules: list[nn.Module], first: int, last: int) -> tuple[int, int]:
    """`span` of modules applied one after the other."""
    return span(nn.Sequential(*modules), first, last)


# --- the same by perturbation and by gradient -----------------------------------------------------


def exact(network: EnCodec) -> EnCodec:
    """The network in double precision with each GRN as the affine map that it is, in place.

    What cannot depend on a sample then does not, to the last bit. (GRN's quotient g / (g + eps) is
    1 up to a rounding that any sample can flip.)
    """
    for module in list(network.modules()):
        if isinstance(module, GRN):
            module.forward = lambda x, m=module: x * (1 + m.gamma) + m.beta
    network.double().eval()
    for module in network.modules():
        if type(module).__name__ == "DynamicPositionBias":
            module.float()  # it makes its own single-precision distances
    return network


def receptive_field(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    index: int,
    guess: tuple[int, int] = (-1, -1),
) -> tuple[int, int]:
    """First and last sample of x (1, samples) that `function(x)[0, index]` depends on.

    Found by perturbation: all samples from k on (or up to k) are replaced; the largest (smallest) k
    for which the output still changes is found by bisection. A `guess` is tried first: if it is
    right, four perturbations show it.
    """
    noise = 10 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = function(x)[0, index]

        def matters(keep: slice) -> bool:
            other = noise.clone()
            other[:, keep] = x[:, keep]
            return not torch.equal(function(other)[0, index], base)

        ends = []
        # replace 0..k; replace k..end
        for kept in (lambda k: slice(k + 1, None), lambda k: slice(None, k)):
            low, high = 0, x.shape[1] - 1
            grows = kept(0).start is not None
            if (k := min(guess[not grows], high)) >= 0:
                within, beyond = (k, k - 1) if grows else (k, k + 1)
                if matters(kept(within)) and not (0 <= beyond <= high and matters(kept(beyond))):
                    low = high = k
            while low < high:
                middle = (low + high) // 2 if grows else (low + high + 1) // 2
                if matters(kept(middle)):
                    low, high = (low, middle) if grows else (middle, high)
                else:
                    low, high = (middle + 1, high) if grows else (low, middle - 1)
            ends.append(low)
    return ends[0], ends[1]


def gradient(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, index: int
) -> np.ndarray:
    """How much `function(x)[0, index]` changes with each sample of x (1, samples).

    (samples,) root of the summed squares of the derivatives of its channels.
    """
    x = x.clone().requires_grad_()
    out = function(x)[0, index].reshape(-1)
    total = torch.zeros_like(x)
    weights = torch.randn(
        min(4, len(out)), len(out), dtype=x.dtype, generator=torch.Generator().manual_seed(1)
    )
    for weight in weights:  # a few random mixtures of the channels stand for all of them
        total += torch.autograd.grad((weight * out).sum(), x, retain_graph=True)[0] ** 2
    return total[0].sqrt().numpy()


def gradient_extent(curve: np.ndarray, threshold: float) -> tuple[int, int]:
    """First and last sample at which a gradient curve exceeds `threshold` times its peak."""
    where = np.flatnonzero(curve > threshold * curve.max())
    return int(where[0]), int(where[-1])


# --- the smallest changes -------------------------------------------------------------------------


class CausalTrendPool(nn.Module):
    """Eq. 1 over the past: maximum and mean over the last K samples."""

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kernel_size == 1:
            return x
        past = (self.kernel_size - 1, 0)
        highest = F.max_pool1d(F.pad(x.abs(), past), self.kernel_size, 1)
        return F.avg_pool1d(F.pad(highest, past), self.kernel_size, 1)


def causal(encoder: nn.Module) -> nn.Module:
    """Move all padding of an encoder to the left, in place: a frame sees nothing after its hop.

    The weights stay, but the outputs change; such a network has to be trained again.
    """
    for module in list(encoder.modules()):
        if isinstance(module, nn.Conv1d) and module.padding != (0,):
            module.behind = (module.kernel_size[0] - 1) * module.dilation[0]
            module.padding = (0,)
            module.register_forward_pre_hook(lambda m, inputs: F.pad(inputs[0], (m.behind, 0)))
    for branch in encoder.blocks[0].blocks:
        branch[0] = CausalTrendPool(branch[0].kernel_size)
    return encoder


def without_instance_norm(network: EnCodec) -> EnCodec:
    """Replace the decoder's instance norms by nothing, in place.

    For counting; the sound is not that of the trained decoder.
    """
    for module in list(network.decoder.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.InstanceNorm1d):
                setattr(module, name, nn.Identity())
    return network
