"""Encoders that others trained: from the Hugging Face hub, or from a file. Notebook 18.

`encodec`, `dac`, `clap` and `ast` are fetched from the hub and run by transformers. Any other
encoder (EfficientAT, PaSST, AudioMAE, OpenL3, your own) is one file, NAME.pt2, that torch.export
writes where that encoder is at home: docs/machines.md shows how. No code of it is needed here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ..core import config, paths, stages
from ..core.errors import PaperError
from ..sound import audio

HUB = {
    "encodec": ("EnCodec", "facebook/encodec_24khz"),
    "dac": ("DAC", "descript/dac_44khz"),
    "clap": ("CLAP-ms", "laion/larger_clap_music_and_speech"),
    "ast": ("AST", "MIT/ast-finetuned-audioset-10-10-0.4593"),
}
NEEDED = ["config.json", "preprocessor_config.json"]
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that there is
PACKED = ".pt2"

Frames = Callable[[np.ndarray], np.ndarray]  # (sounds, samples) -> (sounds, frames, features)
OfOne = Callable[[np.ndarray], torch.Tensor]  # (samples,) at its own rate -> (frames, features)


def named(models: str) -> list[str]:
    """`encodec, my/mn04.pt2` -> both, without blanks; `PaperError` for what is neither."""
    found = config.listed(models)
    for one in found:
        if one not in HUB and not one.endswith(PACKED):
            raise PaperError(
                f"ranking_models: {one!r} is none of {', '.join(HUB)}, and no file NAME{PACKED}."
            )
    return found


def title(name: str) -> str:
    """The row of an encoder in the table: as the paper calls it, or the file's own name."""
    return HUB[name][0] if name in HUB else Path(name).stem


def fetch(name: str) -> tuple[Path, str]:
    """Where an encoder lies, and its version: the hub's commit, or the file's SHA-256.

    One of the hub is downloaded, or found in the hub's cache. `PaperError` where it cannot be had.
    """
    if name not in HUB:
        path = paths.ROOT / Path(name).expanduser()  # (an absolute one stays as it is)
        if not path.is_file():
            raise PaperError(f"ranking_models: there is no file {name}.")
        return path, stages.digest(path)
    folder = snapshot(HUB[name][1], NEEDED, f"do without {name} (ranking_models, token_codec)")
    return folder, folder.name  # (a snapshot's folder is named by its commit)


def snapshot(repository: str, needed: list[str], otherwise: str) -> Path:
    """A repository of the hub, as far as it is `needed`, and its weights: downloaded, or kept.

    `PaperError` where it cannot be had; `otherwise`: what else to do then.
    """
    from huggingface_hub import snapshot_download

    try:
        for weights in WEIGHTS:
            folder = Path(snapshot_download(repository, allow_patterns=[*needed, weights]))
            if (folder / weights).exists():
                return folder
        raise FileNotFoundError(f"neither {' nor '.join(WEIGHTS)}")
    except Exception as problem:
        raise PaperError(
            f"{repository} could not be fetched from the hub ({type(problem).__name__}): check the "
            f"network and HF_ENDPOINT, or {otherwise}."
        ) from problem


def frames_of(name: str, path: Path, heard_at: int) -> Frames:
    """An encoder as a function of sounds (sounds, samples) at `heard_at` Hz; path: see `fetch`."""
    rate, encode = (_HUB[name] if name in HUB else _of_file)(path)

    def frames(x: np.ndarray) -> np.ndarray:
        heard = (audio.resample(one, heard_at, rate).astype(np.float32) for one in x)
        with torch.inference_mode():
            return torch.stack([encode(one) for one in heard]).numpy()

    return frames


# --- one function an encoder: its folder or file -> its rate, and frames of one sound -------------


def _encodec(folder: Path) -> tuple[int, OfOne]:
    """The encoder's frames, 128 numbers each, before they are quantized."""
    from transformers import EncodecModel

    model = EncodecModel.from_pretrained(folder).eval()
    own = lambda x: model.encoder(torch.from_numpy(x)[None, None])[0].T
    return model.config.sampling_rate, own


def _dac(folder: Path) -> tuple[int, OfOne]:
    """The projected latents of all its codebooks side by side, before they are quantized."""
    from transformers import DacModel

    model = DacModel.from_pretrained(folder).eval()
    own = lambda x: model.encode(torch.from_numpy(x)[None, None]).projected_latents[0].T
    return model.config.sampling_rate, own


def _clap(folder: Path) -> tuple[int, OfOne]:
    """One vector a sound, in the space that CLAP shares with text."""
    from transformers import ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(folder).eval()
    own = lambda x: model.get_audio_features(**x).pooler_output
    return _by_extractor(ClapFeatureExtractor.from_pretrained(folder), own)


def _ast(folder: Path) -> tuple[int, OfOne]:
    """The last layer's patches, without the two tokens that stand for the whole."""
    from transformers import ASTFeatureExtractor, ASTModel

    model = ASTModel.from_pretrained(folder).eval()
    own = lambda x: model(**x).last_hidden_state[0, 2:]
    return _by_extractor(ASTFeatureExtractor.from_pretrained(folder), own)


def _by_extractor(extract, network: Callable[[dict], torch.Tensor]) -> tuple[int, OfOne]:
    rate = extract.sampling_rate
    return rate, lambda x: network(extract(x, sampling_rate=rate, return_tensors="pt"))


def _of_file(path: Path) -> tuple[int, OfOne]:
    """A program of torch.export: (1, samples) at the rate in its extra file `rate` -> frames."""
    also = {"rate": ""}
    try:
        program = torch.export.load(path, extra_files=also).module()
    except Exception as problem:
        raise PaperError(f"{path.name} is no program that torch.export has written.") from problem
    if not str(also["rate"]).isdigit():
        raise PaperError(f"{path.name} does not say its sampling rate (the extra file 'rate').")
    return int(also["rate"]), lambda x: program(torch.from_numpy(x)[None])[0]


_HUB = {"encodec": _encodec, "dac": _dac, "clap": _clap, "ast": _ast}
