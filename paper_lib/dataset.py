"""The rendered data set on disk: index, audio, labels, splits. Notebook 01, section 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from . import PaperError, effects, keyed, paths, provenance
from .corpus import Recording
from .profiles import Profile

SPLITS = {"train": 0.70, "validation": 0.15, "test": 0.15}
BLOCK = 60  # recordings that are split together
TURNS = 6  # places on the line of strata where a block's dealing begins, in turn


class Dataset:
    """data/<profile>/dataset, read only.

    index: one row a clip; audio: (clips, samples) int16 at 16 kHz, memory-mapped; labels: (clips, 13) float32.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.provenance = provenance.require(self.folder, "01_render_dataset")
        try:
            self.index = pd.read_parquet(self.folder / "index.parquet")
            self.audio = np.load(self.folder / "audio.npy", mmap_mode="r")
        except (OSError, ValueError) as problem:
            raise PaperError(f"the data set in {self.folder} is damaged ({problem}): delete that folder and run notebook 01 again.") from problem
        if len(self.index) != len(self.audio):
            raise PaperError(f"the data set in {self.folder} is damaged (index and audio differ in length): delete that folder and run notebook 01 again.")
        self.labels = self.index[list(effects.NAMES)].to_numpy(np.float32, copy=True)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def content(self) -> str:
        return self.provenance["content"]

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of `split`, in order."""
        return np.flatnonzero(self.index["split"] == split)

    def clips(self, rows) -> np.ndarray:
        """(len(rows), samples) float32 in [-1, 1)."""
        return self.audio[rows].astype(np.float32) / 32768.0


def load(profile: Profile) -> Dataset:
    """The data set of a profile; `PaperError` if notebook 01 has not been run."""
    return Dataset(paths.data(profile.profile) / "dataset")


def assign_splits(recordings: list[Recording], profile: Profile) -> dict[str, str]:
    """Recording name -> train | validation | test, 70/15/15 (Section 2.3.3), each recording whole.

    Dealt in blocks of 60 (a player of GuitarSet), the last with what is left over: so a larger corpus keeps
    the smaller one's splits, and what was trained on the larger can be judged on the smaller one's test recordings.
    """
    n = len(recordings)
    if profile.split == "by_clip":
        return {}
    if n < 3:
        raise PaperError(f"{n} recording(s) cannot be split by recording into train, validation and test: 3 or more are needed (a recording is a file).")
    blocks = max(1, n // BLOCK)
    bounds = [b * BLOCK for b in range(blocks)] + [n]
    return {k: v for b in range(blocks) for k, v in _deal(recordings[bounds[b] : bounds[b + 1]], profile.seed, (b + b // TURNS / 2) / TURNS % 1).items()}


def _deal(recordings: list[Recording], seed: int, turn: float) -> dict[str, str]:
    """The splits of one block, stratified by style and part as far as it allows: laid out stratum by stratum, shuffled within each by
    keys of their own, and dealt along that line by largest deficit; `turn` says where on the line, so that blocks even out."""
    n = len(recordings)
    held = max(1, round(0.15 * n))
    totals = {"train": n - 2 * held, "validation": held, "test": held}
    line = sorted(recordings, key=lambda r: (r.style, r.part, keyed(seed, "split", r.name).random()))
    line = line[int(turn * n) :] + line[: int(turn * n)]
    given, out = dict.fromkeys(totals, 0), {}
    for i, recording in enumerate(line, 1):
        split = max(totals, key=lambda s: (totals[s] * i / n - given[s], s))
        given[split] += 1
        out[recording.name] = split
    return out


def per_recording_table(data: Dataset) -> pd.DataFrame:
    """Recordings and clips of each split."""
    table = data.index.groupby("split").agg(recordings=("recording", "nunique"), clips=("clip", "size"))
    return table.reindex(list(SPLITS))
