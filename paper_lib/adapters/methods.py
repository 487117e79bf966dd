"""Ways to adapt an encoder by training little of it, behind one function. Notebook 13.

All of them act on the encoder's upper half (what lies at the frame rate: four fifths of its
weights), whose input each clip is brought to only once. Low-rank updates are peft's; what peft has
no form of for this network (bottlenecks, prefixes, biases alone) is written out here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from l3ac.local_trans import LocalEncoder
from peft import IA3Config, LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ..codec.encoder import Encoder, bake
from ..core.errors import PaperError
from ..recognition.model import EffectRecognizer

UNSUITED = (
    "Part III adapts codecs without compression in their attention: set codec to shipped or "
    "hub:3kbps."
)
BY_PEFT = ("lora", "dora", "qlora", "ia3")


@dataclass(frozen=True)
class Method:
    """What is trained of the encoder, beside the head, and how fast."""

    name: str
    kind: str  # head | bias | unfreeze | lora | dora | qlora | ia3 | bottleneck | prefix
    # lora, dora, qlora: r; bottleneck: its width; prefix: its length; unfreeze: layers from the top
    rank: int = 0
    where: tuple[str, ...] = ("attention",)  # and feed_forward, pointwise
    rate: float = 1e-3  # of what is trained of the encoder
    muon: bool = False  # for whole matrices


ATTENTION = ("attention",)
BLOCK = ("attention", "feed_forward")
ALL = ("attention", "feed_forward", "pointwise")

METHODS = (
    Method("head only", "head"),
    Method("biases", "bias", rate=3e-3),
    Method("top layer", "unfreeze", 1),
    Method("top 2 layers", "unfreeze", 2),
    Method("top 3 layers", "unfreeze", 3),
    Method("full", "unfreeze", 4),
    Method("full, Muon", "unfreeze", 4, muon=True),
    Method("LoRA attention 4", "lora", 4, ATTENTION, 3e-3),
    Method("LoRA attention 16", "lora", 16, ATTENTION, 3e-3),
    Method("LoRA attention 64", "lora", 64, ATTENTION, 3e-3),
    Method("LoRA attention 128", "lora", 128, ATTENTION, 3e-3),
    Method("LoRA + feed-forward 4", "lora", 4, BLOCK, 3e-3),
    Method("LoRA + feed-forward 16", "lora", 16, BLOCK, 3e-3),
    Method("LoRA + pointwise 4", "lora", 4, ALL, 3e-3),
    Method("LoRA + pointwise 16", "lora", 16, ALL, 3e-3),
    Method("LoRA + pointwise 64", "lora", 64, ALL, 3e-3),
    Method("DoRA + pointwise 4", "dora", 4, ALL, 3e-3),
    Method("QLoRA + feed-forward 16", "qlora", 16, BLOCK, 3e-3),
    Method("IA3", "ia3", 0, ALL, 1e-2),
    Method("bottlenecks 16", "bottleneck", 16, BLOCK, 3e-3),
    Method("prefix 8", "prefix", 8, ATTENTION, 1e-2),
)

# what a short run compares: one of each kind, LoRA at more than one place and rank
FEW = (
    "head only",
    "biases",
    "full",
    "full, Muon",
    "LoRA attention 4",
    "LoRA attention 16",
    "LoRA attention 128",
    "LoRA + pointwise 4",
    "LoRA + pointwise 64",
    "QLoRA + feed-forward 16",
    "IA3",
    "bottlenecks 16",
    "prefix 8",
)


def attach(model: EffectRecognizer, method: Method, seed: int = 0) -> EffectRecognizer:
    """`model` itself, its encoder frozen but for what `method` trains (drawn from `seed`)."""
    encoder = model.encoder
    if not isinstance(encoder.en_encoder, LocalEncoder):
        raise PaperError(UNSUITED)
    if method.kind in BY_PEFT:
        # peft merges nothing into weights that a weight norm makes anew whenever they are asked
        # for, and says nothing of it: the norm is folded into plain weights first
        bake(encoder.encoder), bake(encoder.en_encoder)
    encoder.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if method.kind in BY_PEFT:
            _with_peft(encoder, method)
        elif method.kind == "bottleneck":
            for parent, name in _places(encoder, method.where):
                if name != "to_qkv" and name != "1":  # (after attention, after feed-forward)
                    linear = getattr(parent, name)
                    wide = nn.Sequential(linear, Bottleneck(linear.out_features, method.rank))
                    setattr(parent, name, wide)
        elif method.kind == "prefix":
            for attention, _ in encoder.en_encoder.local_trans.layers:
                size = attention.to_qkv.out_features // 3 // attention.heads
                drawn = 0.02 * torch.randn(2, attention.heads, method.rank, size)
                attention.prefix = nn.Parameter(drawn)
    for parameter in _of_its_own(encoder, method):
        parameter.requires_grad_(True)
    return model


class Bottleneck(nn.Module):
    """Houlsby et al. (2019): h + W_up ReLU(W_down h). It begins as the identity."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.up(torch.relu(self.down(h)))


def trained(model: EffectRecognizer) -> dict[str, nn.Parameter]:
    """Name -> parameter of all that is trained of the encoder, without the head."""
    return {n: p for n, p in model.encoder.named_parameters() if p.requires_grad}


def merge(model: EffectRecognizer) -> EffectRecognizer:
    """Adapters of peft added into the weights that they adapt (W + B A), in place."""
    for name, layer in list(model.encoder.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.encoder.get_submodule(parent), last, layer.get_base_layer())
    return model


# --- what each kind trains ------------------------------------------------------------------------


def targets(encoder: Encoder, where: tuple[str, ...]) -> list[str]:
    """Names of the linear layers at these places of the upper half."""
    units, found = len(encoder.encoder.blocks) - 2, []
    for i, _ in enumerate(encoder.en_encoder.local_trans.layers):
        layer = f"en_encoder.local_trans.layers.{i}"
        if "attention" in where:
            found += [f"{layer}.0.to_qkv", f"{layer}.0.to_out"]
        if "feed_forward" in where:
            found += [f"{layer}.1.1", f"{layer}.1.4"]
    if "pointwise" in where:
        for i, _ in enumerate(encoder.encoder.blocks[units]):
            unit = f"encoder.blocks.{units}.{i}.module"
            found += [f"{unit}.pw_conv1", f"{unit}.pw_conv2"]
    return found


def _places(encoder: Encoder, where: tuple[str, ...]) -> list[tuple[nn.Module, str]]:
    """The modules that hold `targets`, and under which name."""
    split = [name.rpartition(".") for name in targets(encoder, where)]
    return [(encoder.get_submodule(parent), last) for parent, _, last in split]


def _with_peft(encoder: Encoder, method: Method) -> None:
    names = targets(encoder, method.where)
    if method.kind == "ia3":
        last = [name for name in names if name.endswith(("1.4", "pw_conv2"))]
        config = IA3Config(target_modules=names, feedforward_modules=last)
    else:
        # (alpha = r: the update is B A, unscaled, whatever the rank)
        r, dora = method.rank, method.kind == "dora"
        config = LoraConfig(r=r, lora_alpha=r, target_modules=names, use_dora=dora)
    if method.kind == "qlora":
        _quantise(encoder, method.where)
    inject_adapter_in_model(config, encoder)


def _quantise(encoder: Encoder, where: tuple[str, ...]) -> None:
    """Linear layers in 4 bits (NF4: 16 levels, one scale for 64 weights; Dettmers et al., 2023)."""
    from bitsandbytes.nn import Linear4bit

    for parent, name in _places(encoder, where):
        plain = getattr(parent, name)
        size = plain.in_features, plain.out_features
        small = Linear4bit(*size, plain.bias is not None, torch.float32, quant_type="nf4")
        small.load_state_dict(plain.state_dict())
        # On processors with AVX512-BF16 the first answer in eval mode would repack the weights for
        # a kernel that rounds to 16 bits and passes no gradient on, in training too.
        small.support_avx512bf16_for_cpu = False
        setattr(parent, name, small.to("cpu"))
    encoder.is_loaded_in_4bit = True  # (asked by peft)


def _of_its_own(encoder: Encoder, method: Method) -> list[nn.Parameter]:
    """The parameters that a method trains and that are not peft's (those ask for gradients)."""
    units, last = encoder.encoder.blocks[-2:]
    if method.kind == "bias":
        upper = [*units.named_parameters(), *last.named_parameters()]
        upper += list(encoder.en_encoder.named_parameters())
        return [p for name, p in upper if name.endswith(("bias", "beta"))]
    if method.kind == "unfreeze":
        top = [layer for pair in encoder.en_encoder.local_trans.layers for layer in pair][::-1]
        whole = [*top[:-1], nn.ModuleList([top[-1], encoder.en_encoder]), last, units]
        return [p for layer in whole[: method.rank] for p in layer.parameters()]
    if method.kind == "bottleneck":
        inner = [m for m in encoder.modules() if isinstance(m, Bottleneck)]
        return [p for bottleneck in inner for p in bottleneck.parameters()]
    return [p for name, p in encoder.named_parameters() if name.endswith("prefix")]
