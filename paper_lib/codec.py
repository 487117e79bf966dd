"""L3AC through the `l3ac` package, by one trustworthy loader: pinned, hashed, strict, in `eval()`. Notebook 02, section 1.

`l3ac.get_model` is not used: it fetches unpinned, unverified weights, stays in training mode (the quantizer then adds noise),
and silently keeps random weights where a file is missing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from l3ac import CONFIG_DIR, L3ACConfig, layers
from l3ac.en_codec import EnCodec, ModelConfig
from l3ac.xtract.nn import EPS
from torch import nn
from torch.nn.utils.parametrize import remove_parametrizations

from . import PaperError, paths, provenance

# l3ac compiles these two functions with TorchScript, whose first calls take another backward path than later ones: a training
# that was killed and resumed would then differ in the last bit from one that was not. The same formulas, run eagerly, do not.


def _snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    if torch.is_grad_enabled():
        return x + (alpha + EPS).reciprocal() * torch.sin(alpha * x).pow(2)
    return torch.mul(alpha, x).sin_().square_().mul_((alpha + EPS).reciprocal()).add_(x)  # the same in place, to the bit


def _channel_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return weight * (centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + eps)) + bias


layers.snake, layers.channel_norm = _snake, _channel_norm

HUB_REPOSITORY = "zhai-lw/L3AC"
HUB_MODELS = ("3kbps", "1k5bps", "1kbps", "0k75bps")
PARTS = ("encoder", "en_encoder", "quantizer", "en_decoder", "decoder")


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

    `untrained` gives the same architecture with random weights: the control. Missing, altered or ill-fitting weights: `PaperError`.
    """
    network = build(config_of(codec), seed)
    if untrained:
        return network
    files = _shipped_files() if codec == "shipped" else fetch(codec.removeprefix("hub:"))
    for part, path in files.items():
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            getattr(network, part).load_state_dict(state, strict=True)
        except Exception as problem:
            raise PaperError(f"{path}: these weights do not fit the {part} of {codec} ({str(problem).splitlines()[0]}).") from problem
    return network.eval()


def weights_name(codec: str) -> str:
    """The codec's name and a hash of its weights, since what "shipped" means changes."""
    return f"{codec} ({provenance.digest([provenance.digest(p) for p in (_shipped_files() if codec == 'shipped' else fetch(codec.removeprefix('hub:'))).values()])[:12]})"


def _shipped_card() -> dict:
    path = paths.WEIGHTS / "shipped" / "config.json"
    if not path.exists():
        raise PaperError(f"the shipped weights are missing ({path}): git checkout data/weights brings them back.")
    return json.loads(path.read_text())


def _shipped_files() -> dict[str, Path]:
    card, files = _shipped_card(), {}
    for name, sha256 in card["sha256"].items():
        path = paths.WEIGHTS / "shipped" / name
        if not path.exists():
            raise PaperError(f"the shipped weights are missing ({path}): git checkout data/weights brings them back.")
        if provenance.digest(path) != sha256:
            raise PaperError(f"{path} has the wrong SHA-256: git checkout data/weights brings the published file back.")
        files[path.stem] = path
    return files


# --- the hub ----------------------------------------------------------------------------------------------------------


def pins_file() -> Path:
    """What each hub model is pinned to: revision and SHA-256 of every file."""
    return Path(os.environ.get("PAPER_HUB_PINS", paths.WEIGHTS / "hub_pins.json"))


def pin(name: str, revision: str = "main") -> dict:
    """Pin hub model `name` to the commit that `revision` is now, with the SHA-256 that the hub declares for each file.

    The hub keeps large files under their SHA-256, which it gives as their ETag; a download is checked against it.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    declared = {}
    try:
        for part in PARTS:
            file = f"weights/{name}.v1/{part}.pt"
            seen = get_hf_file_metadata(hf_hub_url(HUB_REPOSITORY, file, revision=revision))
            commit, etag = seen.commit_hash, (seen.etag or "").strip('"')
            if len(etag) != 64:
                raise PaperError(f"the hub declares no SHA-256 for {file}: pin it by hand in {pins_file().name}.")
            declared[file] = etag
    except PaperError:
        raise
    except Exception as problem:
        raise PaperError(_unreachable(name, problem)) from problem
    pins = json.loads(pins_file().read_text()) if pins_file().exists() else {}
    pins[name] = {"repository": HUB_REPOSITORY, "revision": commit, "sha256": declared}
    paths.write_beside(pins_file(), json.dumps(pins, indent=1, sort_keys=True) + "\n")
    return pins[name]


def fetch(name: str) -> dict[str, Path]:
    """Download (or find in the cache) every part of hub model `name` at its pinned revision; each file's SHA-256 is checked.

    A file of the right size with wrong bytes is put out of the cache and refused. A model without a pin is pinned first.
    """
    from huggingface_hub import hf_hub_download

    hub_config(name)
    pins = json.loads(pins_file().read_text()) if pins_file().exists() else {}
    pinned = pins.get(name) or pin(name)
    files = {}
    for file, sha256 in pinned["sha256"].items():
        try:
            path = Path(hf_hub_download(pinned["repository"], file, revision=pinned["revision"]))
        except Exception as problem:
            raise PaperError(_unreachable(name, problem)) from problem
        if provenance.digest(path) != sha256:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise PaperError(f"{file} of {pinned['repository']} has the wrong SHA-256 and was removed: run paper fetch weights again; if it stays so, the hub's file was changed.")
        files[path.stem] = path
    return files


def _unreachable(name: str, problem: Exception) -> str:
    return (
        f"the weights hub:{name} could not be fetched ({type(problem).__name__}: {str(problem).strip().splitlines()[0]}): "
        "check the network and HF_ENDPOINT, or use codec: shipped, which needs none."
    )


# --- the embedding ----------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """What the paper freezes and then fine-tunes: `encoder` and `en_encoder` of the codec, without quantizer and decoder."""

    def __init__(self, network: EnCodec):
        super().__init__()
        self.hop = network.mc.hop_length
        self.encoder = network.encoder
        self.en_encoder = network.en_encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, samples) at 16 kHz -> (batch, frames, 128); the end is zero-padded to a whole frame.

        What has been through `lower` already, (batch, channels, frames), goes on from there.
        """
        x = self.lower(x) if x.ndim == 2 else x
        return self.en_encoder(self.encoder.blocks[-2:](x))

    def lower(self, audio: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, channels, frames): down to the frame rate. A fifth of the (shipped) weights, but most of the work."""
        audio = nn.functional.pad(audio, (0, -audio.shape[-1] % self.hop))
        return self.encoder.blocks[:-2](audio[:, None, :])

    def upper_parameters(self) -> list[nn.Parameter]:
        """The weights above `lower`: the last units of the encoder, and the attention."""
        return [*self.encoder.blocks[-2:].parameters(), *self.en_encoder.parameters()]


def bake(module: nn.Module) -> nn.Module:
    """Fold the weight norm into plain weights, in place: the output stays, a forward pass gets cheaper."""
    for child in module.modules():
        if hasattr(child, "parametrizations"):
            for name in list(child.parametrizations):
                remove_parametrizations(child, name, leave_parametrized=True)
    return module


def parameter_counts(network: EnCodec) -> dict[str, int]:
    """Parameters of each part and of the whole."""
    counts = {part: sum(p.numel() for p in getattr(network, part).parameters()) for part in PARTS}
    return counts | {"whole": sum(counts.values())}
