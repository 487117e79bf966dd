"""The effect recognizer: audio in, 13 logits out; save, load, release, ask (notebook 03)."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from l3ac.en_codec import EnCodec, ModelConfig
from torch import nn

from ..codec import l3ac
from ..codec.encoder import Encoder, bake
from ..core import paths, stages
from ..core.errors import PaperError
from .features import pool, time_statistics
from .head import Head


class EffectRecognizer(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="l3ac-guitar-effects",
    license="mit",
    tags=["audio-classification"],
):
    """Codec encoder, pooling over time, head (Eq. 5).

    `save_pretrained`, `from_pretrained` and `push_to_hub` come with it.
    """

    def __init__(
        self, network: dict, pooling: str = "mean", hidden: int = 256, dropout: float = 0.2
    ):
        super().__init__()
        self.network, self.pooling = network, pooling
        self.encoder = Encoder(l3ac.build(ModelConfig(**network)))
        self.head = Head(network["feature_dim"] * (1 if pooling == "mean" else 3), hidden, dropout)

    @classmethod
    def assemble(cls, network: EnCodec, head: Head, pooling: str) -> EffectRecognizer:
        """From a loaded codec and a head (both copied)."""
        hidden, dropout = head.layers[0].out_features, head.layers[2].p
        model = cls(
            network.mc.model_dump(exclude={"hop_length"}, mode="json"), pooling, hidden, dropout
        )
        model.encoder.encoder.load_state_dict(network.encoder.state_dict())
        model.encoder.en_encoder.load_state_dict(network.en_encoder.state_dict())
        model.head.load_state_dict(head.state_dict())
        return model

    def copy(self) -> EffectRecognizer:
        """The same weights in a network of its own.

        (Deep copies of weight-normed modules share their class.)
        """
        hidden, dropout = self.head.layers[0].out_features, self.head.layers[2].p
        other = EffectRecognizer(self.network, self.pooling, hidden, dropout)
        other.load_state_dict(self.state_dict())
        return other

    def baked_encoder(self) -> Encoder:
        """A copy of the encoder for inference, on the same device."""
        encoder = Encoder(l3ac.build(ModelConfig(**self.network)))
        encoder.load_state_dict(self.encoder.state_dict())
        return bake(encoder).to(self.head.mean.device).eval()

    def embed(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float at 16 kHz -> (batch, 3, channels) time statistics."""
        return time_statistics(self.encoder(samples))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, samples) float at 16 kHz -> (batch, 13) logits."""
        return self.head(pool(self.embed(samples), self.pooling))


def load(folder: Path, kind: Any = EffectRecognizer) -> Any:
    """A saved recognizer of this `kind` (a class of this package), in eval mode."""
    if not all((Path(folder) / name).exists() for name in ("config.json", "model.safetensors")):
        raise PaperError(f"no recognizer in {folder}: paper reproduce makes one.")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints where it loads from
            return kind.from_pretrained(Path(folder)).eval()
    except TypeError as problem:
        raise PaperError(
            f"the network in {folder} is not of the kind that is wanted here ({kind.__name__})."
        ) from problem
    except Exception as problem:
        raise PaperError(
            f"the recognizer in {folder} is damaged ({type(problem).__name__}: "
            f"{str(problem).splitlines()[0]}): delete the folder and make it again."
        ) from problem


def cool(model: nn.Module, temperature: float) -> None:
    """Divide a recognizer's logits by `temperature`, in place: in the weights of its last layer."""
    *_, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    with torch.no_grad():
        last.weight /= temperature
        last.bias /= temperature


def release(model: nn.Module, recordings: dict[str, list[str]], about: dict, target: Path) -> None:
    """Make `model` the released recognizer in the folder `target`.

    Saves its two files (a card that is there stays) and writes release.json: their hashes, `about`
    and, split by split, the names of the `recordings` that it was trained, chosen and tested on.
    """
    model.save_pretrained(target)
    files = ("config.json", "model.safetensors")
    record = {
        "sha256": {name: stages.digest(target / name) for name in files},
        "recordings": recordings,
    } | about
    paths.write_beside(target / "release.json", json.dumps(record, indent=1, sort_keys=True) + "\n")


def released(name: str = "released", kind: Any = EffectRecognizer) -> tuple[Any, dict] | None:
    """The recognizer that ships in data/weights/`name`, and its release.json; None: there is none.

    Altered files: `PaperError`.
    """
    folder = paths.WEIGHTS / name
    if not (folder / "release.json").exists():
        return None
    record = json.loads((folder / "release.json").read_text())
    for name, sha256 in record["sha256"].items():
        if not (folder / name).exists() or stages.digest(folder / name) != sha256:
            raise PaperError(
                f"{folder / name} is missing or has the wrong SHA-256: git checkout data/weights "
                "brings the published file back."
            )
    return load(folder, kind), record
