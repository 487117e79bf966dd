"""What the paper on neural proxies for synthesizers states, and what amsynth says to it.

Notebook 18: its Section 4, on which representations rank sounds well.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .claims import Finding, claim, holds, judged


@dataclass(frozen=True)
class Stated:
    """What it states."""

    order: tuple[str, ...] = ("mel128", "mfcc40", "mSTFT")  # its hand-made rows, best first
    well: float = 0.95  # (our reading of "performed well"; its least on reverb wet is 0.976)


@dataclass(frozen=True)
class Ranked:
    """What notebook 18 measured: table_ranking, and the mean score of every reduction."""

    table: pd.DataFrame
    reductions: pd.DataFrame  # representation, reduction, score

    def wide(self, column: str = "mean") -> pd.DataFrame:
        """A row a representation that was trained or made by hand, a column an attribute."""
        wide = self.table.pivot(index="representation", columns="attribute", values=column)
        return wide.drop(index="L3AC untrained")


@claim("proxy_codecs", "Section 4.2", "codecs yield poor results", "notebook 18, section 4")
def _codecs(s: Stated, m: Ranked) -> Finding:
    mean = m.wide()["mean"]
    least = mean[list(s.order)].min()
    return (
        holds(mean["L3AC"] < least),
        f"L3AC {mean['L3AC']:.3f}, the least of the spectral ones {least:.3f}",
    )


@claim("proxy_order", "Figure 2", "mel128 before mfcc40 before mSTFT", "notebook 18, section 5")
def _order(s: Stated, m: Ranked) -> Finding:
    mean = m.wide()["mean"][list(s.order)]
    told = ", ".join(f"{name} {value:.3f}" for name, value in mean.items())
    return holds(bool(mean.is_monotonic_decreasing)), told


@claim("proxy_average", "Section 4.2", "averages over time are better in most models", "means")
def _average(s: Stated, m: Ranked) -> Finding:
    both = m.reductions.pivot(index="representation", columns="reduction", values="score")
    both = both.drop(index=["L3AC untrained", "mSTFT"])  # (mSTFT has no frames side by side)
    better = (both["avg time"] > both["nop"]).sum()
    return holds(2 * better > len(both)), f"better in {better} of {len(both)}"


@claim("proxy_reverb", "Section 4.2", "all models perform well on reverb wet", "its least score")
def _reverb(s: Stated, m: Ranked) -> Finding:
    scores = m.wide()["reverb wet"]
    return holds(scores.min() >= s.well), f"the least is {scores.min():.3f} ({scores.idxmin()})"


@claim("proxy_lfo", "Section 4.2", "LFO parameters vary most between models", "their deviation")
def _lfo(s: Stated, m: Ranked) -> Finding:
    spread = m.wide().std(ddof=0)
    lfo = spread[[name for name in spread.index if name.startswith("lfo")]].mean()
    rest = spread[[name for name in spread.index if name.startswith(("amp", "filter"))]].mean()
    return holds(lfo > rest), f"mean deviation {lfo:.3f}; amp and filter parameters {rest:.3f}"


@claim("proxy_pitch", "Section 4.2", "hand-made features struggle with pitch", "below their mean")
def _pitch(s: Stated, m: Ranked) -> Finding:
    wide = m.wide().loc[list(s.order)]
    below = wide["pitch coarse"] < wide["mean"]
    told = ", ".join(f"{name} {value:.3f}" for name, value in wide["pitch coarse"].items())
    return holds(bool(below.all())), f"{told}; below its own mean for {below.sum()} of {len(wide)}"


@claim(
    "proxy_stable", "Section 4.2", "lower scores come with higher deviations", "rank correlation"
)
def _stable(s: Stated, m: Ranked) -> Finding:
    attributes = m.wide().drop(columns="mean")
    deviation = m.wide("sd").drop(columns="mean").mean(axis=1)
    found = attributes.mean(axis=1).corr(deviation, method="spearman")
    return holds(found < 0), f"{found:.2f} over {len(attributes)} representations"


def ledger(measured: Ranked, stated: Stated = Stated()) -> pd.DataFrame:
    """Its claims that this part can judge so far, a row each; the columns of notebook 07's."""
    claims = [_codecs, _order, _average, _reverb, _lfo, _pitch, _stable]
    return judged("neural proxies for synthesizers", stated, claims, measured)
