"""A whole data set -> one array of embeddings: the frozen codec, its untrained control, and log-mel. Notebook 02, section 2.

Every kind leaves (clips, 3, channels) float32: mean (Eq. 2), standard deviation and mean absolute difference over time. On its way up the
frozen encoder a clip also passes half-way, (channels, frames) float16: what notebook 03 trains the upper half on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from . import codec as codecs
from . import PaperError, machine, paths, provenance
from .dataset import Dataset
from .profiles import Profile

KINDS = ("frozen", "random_frozen", "logmel")
CHUNK = 192  # clips between two notes of progress


def time_statistics(frames: torch.Tensor) -> torch.Tensor:
    """(batch, frames, channels) -> (batch, 3, channels): mean (Eq. 2), standard deviation, mean absolute difference."""
    difference = frames.diff(dim=1).abs().mean(dim=1)
    return torch.stack([frames.mean(dim=1), frames.std(dim=1, correction=0), difference], dim=1)


def pool(statistics, pooling: str):
    """(..., 3, channels) -> the head's input: (..., channels) for `mean`, (..., 3 channels) for `mean_sd_mad`."""
    return statistics[..., 0, :] if pooling == "mean" else statistics.reshape(*statistics.shape[:-2], -1)


class LogMel(nn.Module):
    """The classical front end: (batch, samples) -> (batch, frames, 64) log-mel power, 64 ms windows every 16 ms."""

    def __init__(self):
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.mel = MelSpectrogram(sample_rate=16_000, n_fft=1024, hop_length=256, n_mels=64, f_max=8000.0)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        return torch.log(self.mel(audio) + 1e-6).transpose(1, 2)


def front_end(kind: str, profile: Profile) -> nn.Module:
    """The frozen module behind `kind`: audio (batch, samples) -> frames (batch, frames, channels)."""
    if kind == "logmel":
        return LogMel().eval()
    network = codecs.load(profile.codec, untrained=kind == "random_frozen", seed=profile.seed)
    return codecs.bake(codecs.Encoder(network)).eval()


class Lowered:
    """A data set whose clips went through the pretrained encoder's lower part once: (rows, channels, frames) instead of samples."""

    def __init__(self, data: Dataset, array: np.ndarray):
        self.data, self.array, self.labels = data, array, data.labels

    def clips(self, rows) -> np.ndarray:
        return self.array[rows].astype(np.float32)


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over all weights of a module."""
    return provenance.array_digest(*(v.detach().cpu().numpy() for _, v in sorted(module.state_dict().items())))


def embed_rows(module: nn.Module, data: Dataset | Lowered, rows, out: np.ndarray, first: int = 0, after=None, label: str = "", lowered: np.ndarray | None = None) -> None:
    """Fill out[first:] with the time statistics of the clips `rows[first:]`, and `lowered`, if given, with what `module.lower` makes of
    them; `after(done)` is called now and then.

    On a CPU, clip by clip in as many workers as torch has threads, one thread each: faster than one worker with all threads
    (the network is memory-bound), and the numbers do not depend on how many there are. Results go straight into `out`:
    keeping each batch's little tensor instead fragments the heap by gigabytes.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = module.to(device)
    batch, workers = (1, torch.get_num_threads()) if device.type == "cpu" else (64, 1)

    def work(start: int) -> int:
        part = rows[start : start + batch]
        with torch.inference_mode():
            x = torch.from_numpy(data.clips(part)).to(device)
            if lowered is not None:
                x = module.lower(x)
                lowered[start : start + len(part)] = x.half().cpu().numpy()
            out[start : start + len(part)] = time_statistics(module(x)).cpu().numpy()
        return len(part)

    bar = tqdm(total=len(rows), initial=first, unit="clip", desc=f"embedding {label}".strip())
    with machine.one_thread(), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool, bar:
        for begin in range(first, len(rows), CHUNK):  # whole chunks, so that what `after` hears of is complete
            end = min(begin + CHUNK, len(rows))
            for count in pool.map(work, range(begin, end, batch)):
                bar.update(count)
            if after:
                after(end)
    module.cpu()


def embed_dataset(profile: Profile, data: Dataset, kind: str, halfway: bool = False) -> np.ndarray:
    """Make (or resume, or find) data/<profile>/embedding_<kind>: (clips, 3, channels) float32, in the index's order.

    `halfway` (a codec's kinds): keep beside it what `halfway_up` reads, at the cost of disk and of no time.
    """
    machine.settle(profile.threads)
    module = front_end(kind, profile)
    folder = paths.data(profile.profile) / f"embedding_{kind}"
    inputs = {"dataset": data.content, "weights": weights_digest(module)}
    stage = provenance.Stage(folder, {"kind": kind}, inputs, ("embedding", "codec"))
    if not stage.current() or halfway and not (folder / "lower.npy").exists():
        work = stage.begin()
        halfway = halfway or (work / "lower.npy").exists()  # what was begun with it ends with it
        silence = torch.zeros(1, data.audio.shape[1])
        with torch.inference_mode():
            wanted = {"embedding": time_statistics(module(silence)).numpy()} | ({"lower": module.lower(silence).half().numpy()} if halfway else {})
        files, count = {name: work / f"{name}.npy" for name in wanted}, work / "done"
        if not (count.exists() and all(file.exists() for file in files.values())):
            count.unlink(missing_ok=True)  # what was begun without it begins anew
            paths.require_disk(folder, sum(len(data) * one.nbytes for one in wanted.values()), "the embeddings")
            for name, one in wanted.items():
                paths.new_array(files[name], one.dtype, (len(data), *one.shape[1:]))
            count.write_text("0")
        arrays = {name: np.lib.format.open_memmap(file, "r+") for name, file in files.items()}

        def after(done: int) -> None:
            for array in arrays.values():
                array.flush()
            paths.write_beside(count, str(done))

        embed_rows(module, data, np.arange(len(data)), arrays["embedding"], int(count.read_text()), after, kind, arrays.get("lower"))
        if not all(np.isfinite(array[i : i + CHUNK]).all() for array in arrays.values() for i in range(0, len(array), CHUNK)):
            raise PaperError(f"the {kind} embeddings hold NaN or infinite values: check the weights of codec {profile.codec}.")
        del arrays
        stage.finish(provenance.digest(files["embedding"]))
    return np.load(folder / "embedding.npy", mmap_mode="r")


def halfway_up(profile: Profile, data: Dataset) -> np.ndarray:
    """(clips, channels, frames) float16: every clip after the lower part of the frozen encoder."""
    embed_dataset(profile, data, "frozen", halfway=True)
    return np.load(paths.data(profile.profile) / "embedding_frozen" / "lower.npy", mmap_mode="r")
