"""L3AC through the `l3ac` package, by one trustworthy loader: pinned, hashed, strict, in `eval()`.

Notebook 02, section 1.

`l3ac.get_model` is not used: it fetches unpinned, unverified weights, stays in training mode (the
quantizer then adds noise), and silently keeps random weights where a file is missing.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from l3ac import CONFIG_DIR, L3ACConfig, layers
from l3ac.en_codec import EnCodec, ModelConfig
from l3ac.xtract.nn import EPS
from safetensors.torch import load_file

from ..core import paths, stages
from ..core.errors import PaperError
from . import hub

# l3ac compiles these two functions with TorchScript, whose first calls take another backward path
# than later ones: a training that was killed and resumed would then differ in the last bit from one
# that was not. The same formulas, run eagerly, do not.


def _snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled():
        return x + (alpha + EPS).reciprocal() * torch.sin(alpha * x).pow(2)
    # the same in place, to the bit
    return torch.mul(alpha, x).sin_().square_().mul_((alpha + EPS).reciprocal()).add_(x)


def _channel_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: torch.Tensor
) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return weight * (centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + eps)) + bias


layers.snake, layers.channel_norm = _snake, _channel_norm

HUB_MODELS = ("3kbps", "1k5bps", "1kbps", "0k75bps")
PARTS = hub.PARTS


def build(config: ModelConfig, seed: int = 0) -> EnCodec:
    """An untrained network, the same for the same seed, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EnCodec(config).eval()


def hub_config(name: str) -> ModelConfig:
    """The published configuration `name`, from the l3ac package."""
    if name not in HUB_MODELS:
        raise PaperError(f"unknown L3AC model {name!r}; there are: {', '.join(HUB_MODELS)}.")
    return L3ACConfig(config_file=CONFIG_DIR / f"{name}.toml").network_config


def config_of(codec: str) -> ModelConfig:
    """The network configuration behind a profile's `codec`."""
    if codec == "shipped":
        return ModelConfig(**_shipped_card()["network"])
    return hub_config(codec.removeprefix("hub:"))


def load(codec: str, untrained: bool = False, seed: int = 0) -> EnCodec:
    """The codec that a profile names, with its pretrained weights, in eval mode, on the CPU.

    `untrained` gives the same architecture with random weights: the control. Missing, altered or
    ill-fitting weights: `PaperError`.
    """
    network = build(config_of(codec), seed)
    if untrained:
        return network
    for part, path in files_of(codec).items():
        try:
            if path.suffix == ".safetensors":
                state = {
                    k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()
                }
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            getattr(network, part).load_state_dict(state, strict=True)
        except Exception as problem:
            raise PaperError(
                f"{path}: these weights do not fit the {part} of {codec} "
                f"({str(problem).splitlines()[0]})."
            ) from problem
    return network.eval()


def files_of(codec: str) -> dict[str, Path]:
    """Part of the network -> its weights' file, each checked against its SHA-256."""
    return _shipped_files() if codec == "shipped" else hub.fetch(codec.removeprefix("hub:"))


def weights_name(codec: str) -> str:
    """The codec's name and a hash of its weights, since what "shipped" means changes."""
    return f"{codec} ({stages.digest([stages.digest(p) for p in files_of(codec).values()])[:12]})"


def _shipped_card() -> dict:
    path = paths.WEIGHTS / "shipped" / "config.json"
    if not path.exists():
        raise PaperError(
            f"the shipped weights are missing ({path}): git checkout data/weights brings them back."
        )
    return json.loads(path.read_text())


def _shipped_files() -> dict[str, Path]:
    card, files = _shipped_card(), {}
    for name, sha256 in card["sha256"].items():
        path = paths.WEIGHTS / "shipped" / name
        if not path.exists():
            raise PaperError(
                f"the shipped weights are missing ({path}): "
                "git checkout data/weights brings them back."
            )
        if stages.digest(path) != sha256:
            raise PaperError(
                f"{path} has the wrong SHA-256: "
                "git checkout data/weights brings the published file back."
            )
        files[path.stem] = path
    return files


def parameter_counts(network: EnCodec) -> dict[str, int]:
    """Parameters of each part and of the whole."""
    counts = {part: sum(p.numel() for p in getattr(network, part).parameters()) for part in PARTS}
    return counts | {"whole": sum(counts.values())}
