"""A data set -> one array of embeddings (notebook 02).

Of three kinds: the frozen codec, its untrained control, and log-mel. Every kind leaves
(clips, 3, channels) float32: mean (Eq. 2), standard deviation and mean absolute difference over
time. On its way up the frozen encoder a clip also passes half-way, (channels, frames) float16: what
notebook 03 trains the upper half on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..codec import encoder, l3ac
from ..codec.frontends import LogMel
from ..core import machine, parallel, paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..sound.dataset import Dataset

KINDS = ("frozen", "random_frozen", "logmel")
CHUNK = 96  # clips a shard


def time_statistics(frames: torch.Tensor) -> torch.Tensor:
    """(batch, frames, channels) -> (batch, 3, channels).

    Mean (Eq. 2), standard deviation and mean absolute difference over time.
    """
    difference = frames.diff(dim=1).abs().mean(dim=1)
    return torch.stack([frames.mean(dim=1), frames.std(dim=1, correction=0), difference], dim=1)


def pool(statistics, pooling: str):
    """(..., 3, channels) -> the head's input.

    (..., channels) for `mean`, (..., 3 channels) for `mean_sd_mad`.
    """
    if pooling == "mean":
        return statistics[..., 0, :]
    return statistics.reshape(*statistics.shape[:-2], -1)


def front_end(kind: str, codec: str, seed: int) -> nn.Module:
    """The frozen module behind `kind`: (batch, samples) -> (batch, frames, channels)."""
    if kind == "logmel":
        return LogMel().eval()
    network = l3ac.load(codec, untrained=kind == "random_frozen", seed=seed)
    return encoder.bake(encoder.Encoder(network)).eval()


cached_front_end = functools.lru_cache(2)(front_end)  # (a worker gets many parts of one data set)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over all weights of a module."""
    return stages.array_digest(
        *(v.detach().cpu().numpy() for _, v in sorted(module.state_dict().items()))
    )


@dataclass(frozen=True, eq=False)
class EncodedClips:
    """Clips that went half-way up once: through the encoder's lower part, or to log-mel."""

    labels: np.ndarray  # (rows, 13)
    activations: np.ndarray  # (rows, channels, frames)
    dry: np.ndarray | None = None  # (rows, 64) spectra of their guitars without effects
    otherwise: tuple[np.ndarray, ...] = ()  # the same as they might have been recorded otherwise

    def clips(self, rows) -> np.ndarray:
        return self.activations[rows].astype(np.float32)

    def stored(self) -> tuple[tuple[np.ndarray, ...], float]:
        """All activations as they are kept, as they are and as they might be; their factor."""
        return (self.activations, *self.otherwise), 1.0


def on_gpu(stored: np.ndarray, device: torch.device | str) -> torch.Tensor | None:
    """An array of clips, moved to the GPU once for a whole training; None: no GPU, or no room."""
    if torch.device(device).type != "cuda":
        return None
    key = (id(stored), stored.shape)
    if key not in _ON_GPU:
        free, _ = torch.cuda.mem_get_info(device)
        fits = stored.nbytes < free / 4
        if len(_ON_GPU) > 4:  # (of one training at a time)
            _ON_GPU.clear()
        there = torch.from_numpy(np.array(stored)).to(device) if fits else None
        _ON_GPU[key] = (stored, there)
    return _ON_GPU[key][1]


# id and shape -> the array, held so that no other one gets its id, and its copy
_ON_GPU: dict[tuple, tuple[np.ndarray, torch.Tensor | None]] = {}


def embed(
    module: nn.Module, audio: np.ndarray, keep_lower: bool = False
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Time statistics (batch, 3, channels) of clips, batch by batch.

    Beside them what `module.lower` makes of the clips, if wanted. On a CPU clip by clip: the
    network is bound by memory, and numbers do not depend on the batch.
    """
    device = next(iter(module.state_dict().values())).device
    batch = 1 if device.type == "cpu" else 64
    for start in range(0, len(audio), batch):
        with torch.inference_mode():
            x = torch.from_numpy(audio[start : start + batch]).to(device)
            lower = module.lower(x) if keep_lower else x
            yield time_statistics(module(lower)).cpu(), lower.half().cpu() if keep_lower else lower


def embed_rows_of(
    folder: Path, rows: slice, kind: str, codec: str, seed: int, keep_lower: bool
) -> dict[str, np.ndarray]:
    """The clips `rows` of the data set in `folder`: `embedding`, and `lower` where wanted."""
    machine.make_deterministic(1)
    module = cached_front_end(kind, codec, seed).to("cuda" if torch.cuda.is_available() else "cpu")
    clips = np.load(folder / "audio.npy", mmap_mode="r")[rows].astype(np.float32) / 32768.0
    embedding, lower = zip(*embed(module, clips, keep_lower), strict=True)
    out = {"embedding": torch.cat(embedding).numpy()}
    if keep_lower:
        out["lower"] = torch.cat(lower).numpy()
    if not all(np.isfinite(array).all() for array in out.values()):
        raise PaperError(
            f"the {kind} embeddings hold NaN or infinite values: "
            f"check the weights of codec {codec}."
        )
    return out


def keeps_lower(profile: Profile, kind: str) -> bool:
    """Does a later notebook of this run go on from half-way up?

    Notebooks 03, A2, 13 to 15 and 17 from the lower half of the encoder, 09 and 17 from log-mel.
    """
    upper = profile.upper_epochs > 0 or profile.recipe_epochs > 0
    return {"frozen": upper, "logmel": profile.peer_epochs > 0}.get(kind, False)


def stage(profile: Profile, data: Dataset, kind: str) -> stages.Stage:
    """The stage of one front end's embeddings: which weights, of which data set."""
    weights = weights_digest(cached_front_end(kind, profile.codec, profile.seed))
    inputs = {"dataset": data.content, "weights": weights}
    parameters = {"kind": kind, "lower": keeps_lower(profile, kind)}
    return stages.Stage(
        "embedding", paths.embedding(profile.profile, kind), parameters, inputs, threads=1
    )


def embed_dataset(profile: Profile, data: Dataset, kind: str) -> np.ndarray:
    """Make (or resume, or find) data/<profile>/embedding_<kind>.

    (clips, 3, channels), in the index's order.
    """
    made = stage(profile, data, kind)
    keep_lower = keeps_lower(profile, kind)
    with made.opened() as work:
        if work:
            own = (data.folder, kind, profile.codec, profile.seed, keep_lower)
            items = {}
            for start in range(0, len(data), CHUNK):
                rows = slice(start, min(start + CHUNK, len(data)))
                items[f"{start:07d}"] = (own[0], rows, *own[1:])
            files = parallel.shards(
                embed_rows_of, items, work / "shards", f"embedding {kind}", profile.scheduler
            )
            for name in ("embedding", "lower")[: 1 + keep_lower]:
                _assemble(files, name, work / f"{name}.npy", len(data))
            made.finish(stages.digest(work / "embedding.npy"))
    return np.load(made.folder / "embedding.npy", mmap_mode="r")


def _assemble(shards: list[Path], name: str, file: Path, clips: int) -> None:
    first = np.load(shards[0])[name]
    paths.require_disk(file.parent, clips * first[0].nbytes, "the embeddings")
    paths.new_array(file, first.dtype, (clips, *first.shape[1:]))
    out, row = np.lib.format.open_memmap(file, "r+"), 0
    for shard in shards:
        part = np.load(shard)[name]
        out[row : row + len(part)] = part
        row += len(part)
    out.flush()


def kept(profile: Profile, data: Dataset, kind: str) -> EncodedClips:
    """What is kept of every clip half-way up, (clips, channels, frames) float16.

    `frozen`: after the lower part of the encoder; `logmel`: the spectrogram.
    """
    if not keeps_lower(profile, kind):
        key = {"frozen": "upper_epochs", "logmel": "peer_epochs"}[kind]
        raise PaperError(
            f"this run keeps nothing from half-way up ({kind}): set {key} to 1 or more."
        )
    embed_dataset(profile, data, kind)
    file = paths.embedding(profile.profile, kind) / "lower.npy"
    return EncodedClips(data.labels, np.load(file, mmap_mode="r"))


def statistics_of(module: nn.Module, data: Dataset | EncodedClips, rows: np.ndarray) -> np.ndarray:
    """(rows, 3, channels) time statistics under a module of this process, e.g. one in training."""
    if next(module.parameters()).device.type != "cpu":
        return np.concatenate([s.numpy() for s, _ in embed(module, data.clips(rows))])

    def statistics(i: int) -> np.ndarray:
        ((found, _),) = embed(module, data.clips(rows[i : i + 1]))
        return found[0].numpy()

    first = statistics(0)
    out = np.empty((len(rows), *first.shape), np.float32)  # (small results fragment the heap)

    def fill(i: int) -> None:
        out[i] = statistics(i)

    workers = torch.get_num_threads()
    with (
        machine.one_thread(),
        ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool_,
    ):
        list(pool_.map(fill, range(len(rows))))
    return out
