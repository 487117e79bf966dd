"""Where a notebook's tables and figures go, each entered in the manifest.

Every table is a .csv and a .md, every figure a .png, an .svg and the .csv that it draws; the same
run gives the same bytes.
"""

from __future__ import annotations

import io

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from ..core import manifest, paths, stages
from ..core.config import Profile


def style() -> None:
    """The look of every figure, and what makes SVG files repeatable."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc={"figure.dpi": 90, "savefig.dpi": 150},
    )
    matplotlib.rcParams["svg.hashsalt"] = "guitar effects"


class Report:
    """figures/<profile>, with the manifest entry.

    An artefact's inputs are all stages that the notebook has read by then, and the `inputs` named
    here (what does not lie in a stage: shipped weights, released recognizers). `also`: another run
    whose stages count, too.
    """

    def __init__(self, profile: Profile, notebook: str, also: str = "", **inputs: str):
        self.profile, self.notebook, self.inputs = profile.profile, notebook, inputs
        self.also = also
        self.folder = paths.figures(profile.profile)
        style()

    def table(self, name: str, frame: pd.DataFrame, note: str = "") -> pd.DataFrame:
        """Write NAME.csv (four decimals) and NAME.md (with `note` below); the frame comes back for
        display.
        """
        rounded = frame.round(4)
        csv = rounded.to_csv(index=False, lineterminator="\n")
        markdown = _markdown(rounded) + (f"\n{note}\n" if note else "")
        self._write({f"{name}.csv": csv, f"{name}.md": markdown})
        return rounded

    def figure(self, name: str, figure: plt.Figure, drawn: pd.DataFrame) -> None:
        """Write NAME.png, NAME.svg (without dates, versions or random ids) and NAME.csv: the
        numbers that it draws, or of a picture of sound a summary of them.
        """
        files = {f"{name}.csv": drawn.round(6).to_csv(index=False, lineterminator="\n")}
        for suffix, metadata in (
            ("png", {"Software": None}),
            ("svg", {"Date": None, "Creator": None}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, metadata=metadata, bbox_inches="tight")
            files[f"{name}.{suffix}"] = buffer.getvalue()
        self._write(files)

    def _write(self, files: dict[str, str | bytes]) -> None:
        for name, content in files.items():
            paths.write_beside(self.folder / name, content)
        beside = stages.lineage(self.also) if self.also else {}
        inputs = stages.lineage(self.profile) | {f"{self.also}/{n}": c for n, c in beside.items()}
        inputs |= self.inputs
        manifest.record(self.profile, [self.folder / name for name in files], self.notebook, inputs)


def _cell(value) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(frame: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"
