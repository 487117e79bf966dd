"""The rendered data set on disk: index, audio, labels, splits. Notebook 01, section 4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..core import paths, stages
from ..core.config import Profile
from ..core.errors import PaperError
from ..core.random import generator_for
from . import effects, splits

SPLITS = tuple(splits.SHARES)  # train, validation, test


class Dataset:
    """data/<profile>/dataset, read only.

    index: one row a clip; audio: (clips, samples) int16 at 16 kHz, memory-mapped;
    labels: (clips, 13) float32.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.provenance = stages.require(self.folder, "01_render_dataset")
        try:
            self.index = pd.read_parquet(self.folder / "index.parquet")
            self.audio = np.load(self.folder / "audio.npy", mmap_mode="r")
        except (OSError, ValueError) as problem:
            raise self._damaged(problem) from problem
        if len(self.index) != len(self.audio):
            raise self._damaged("index and audio differ in length")
        self.labels = self.index[list(effects.NAMES)].to_numpy(np.float32, copy=True)

    def _damaged(self, why) -> PaperError:
        return PaperError(
            f"the data set in {self.folder} is damaged ({why}): delete that folder and run "
            "notebook 01 again."
        )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def content(self) -> str:
        return self.provenance["content"]

    def rows(self, split: str) -> np.ndarray:
        """Row numbers of `split`, in order."""
        return np.flatnonzero(self.index["split"] == split)

    def in_turns(self, split: str, *key) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a split, drawn, a clip of each recording first, then second clips; their turns.

        key: of the draw. The turns count from 0.
        """
        rows = self.rows(split)
        drawn = rows[generator_for(0, *key, split).permutation(len(rows))]
        recordings = pd.Series(self.index.recording.to_numpy()[drawn])
        turns = recordings.groupby(recordings).cumcount().to_numpy()
        order = np.argsort(turns, kind="stable")
        return drawn[order], turns[order]

    def clips(self, rows) -> np.ndarray:
        """(len(rows), samples) float32 in [-1, 1)."""
        return self.audio[rows].astype(np.float32) / 32768.0

    def stored(self) -> tuple[tuple[np.ndarray, ...], float]:
        """All clips as they are kept, and what they are to be multiplied by."""
        return (self.audio,), 1 / 32768.0


def load(profile: Profile) -> Dataset:
    """The data set of a profile; `PaperError` if notebook 01 has not been run."""
    return Dataset(paths.dataset(profile.profile))


def per_recording_table(data: Dataset) -> pd.DataFrame:
    """Recordings and clips of each split."""
    table = data.index.groupby("split").agg(
        recordings=("recording", "nunique"), clips=("clip", "size")
    )
    return table.reindex(list(SPLITS))
