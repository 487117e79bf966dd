"""Scores, and what trivial answers would score (Section 2.3.4; notebooks 02 to 05)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..core.random import generator_for
from ..sound import effects


def scores(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Micro-F1 (Eq. 6) and macro-F1 (Eq. 7) of 0/1 arrays (clips, 13).

    A class never claimed and never true scores 0.
    """
    tp, fp, fn = totals(truth, said)
    micro = f1_of(*(np.array(x.sum()) for x in (tp, fp, fn)))
    return {"micro_f1": float(micro), "macro_f1": float(f1_of(tp, fp, fn).mean())}


def totals(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(3, 13): true positives, false positives, false negatives over all clips."""
    truth, said = truth.astype(bool), said.astype(bool)
    return np.stack([truth & said, ~truth & said, truth & ~said]).sum(1).astype(float)


def per_class(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(13,) F1 of each effect."""
    return f1_of(*totals(truth, said))


def mean_average_precision(truth: np.ndarray, probability: np.ndarray) -> float:
    """Average precision over all thresholds, averaged over the classes that occur.

    Sees progress that F1 at 0.5 is blind to. (scikit-learn's number, all classes at once: this is
    asked after every epoch, and a head's epoch takes less time than thirteen calls of
    scikit-learn's.)
    """
    there = truth.sum(0) > 0
    truth, probability = truth[:, there] > 0, probability[:, there]
    order = np.argsort(-probability, axis=0, kind="stable")
    hits, ranked = (np.take_along_axis(x, order, 0) for x in (truth, probability))
    precision = hits.cumsum(0) / np.arange(1, len(hits) + 1)[:, None]
    # clips of equal probability pass every threshold together: they share the precision of the last
    place = np.arange(len(hits))[:, None] * np.ones_like(hits, int)
    last = np.vstack([ranked[1:] != ranked[:-1], np.ones((1, ranked.shape[1]), bool)])
    end = np.minimum.accumulate(np.where(last, place, len(hits))[::-1], 0)[::-1]
    shared = np.take_along_axis(precision, end, 0)
    return float((np.where(hits, shared, 0).sum(0) / hits.sum(0)).mean())


def counts(truth: np.ndarray, said: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """(recordings, 3, 13): true positives, false positives, false negatives of each recording."""
    truth, said = truth.astype(bool), said.astype(bool)
    each = np.stack([truth & said, ~truth & said, truth & ~said], axis=1).astype(float)
    _, group = np.unique(recordings, return_inverse=True)
    out = np.zeros((group.max() + 1, 3, truth.shape[1]))
    np.add.at(out, group, each)
    return out


def f1_of(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN), element by element; 0 where nothing is true and nothing claimed."""
    return np.divide(2 * tp, 2 * tp + fp + fn, out=np.zeros_like(tp), where=(2 * tp + fp + fn) > 0)


def chance(train_labels: np.ndarray, clips: int, seed: int) -> np.ndarray:
    """(clips, 13) guesses: each label drawn with its frequency in the training set."""
    return (
        generator_for(seed, "chance").random((clips, train_labels.shape[1])) < train_labels.mean(0)
    ).astype(int)


def majority(train_labels: np.ndarray, clips: int) -> np.ndarray:
    """(clips, 13): each label's more frequent value in the training set, always."""
    return np.tile((train_labels.mean(0) > 0.5).astype(int), (clips, 1))


def always(clips: int) -> np.ndarray:
    """(clips, 13): every effect claimed, always.

    F1 rewards saying yes: this scores 2 s / (s + n) with support s of n clips.
    """
    return np.ones((clips, len(effects.NAMES)), int)


def thresholds(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """(13,) thresholds, each the best for its effect's F1 on these clips (a grid of 0.01 to 0.99;
    the middle one of equals).
    """
    grid = np.linspace(0.01, 0.99, 99)
    score = np.array([per_class(truth, probability > t) for t in grid])
    return np.array([np.median(grid[column == column.max()]) for column in score.T])


def cautious_thresholds(
    truth: np.ndarray, probability: np.ndarray, within: float = 0.01
) -> np.ndarray:
    """(13,) thresholds for other recordings than these: as near to 0.5 as costs next to nothing.

    For each effect, of those whose F1 here is at most `within` below the best, the nearest to 0.5.
    """
    grid = np.linspace(0.01, 0.99, 99)
    score = np.array([per_class(truth, probability > t) for t in grid])
    far = np.where(score >= score.max(0) - within, np.abs(grid - 0.5)[:, None], np.inf)
    return grid[far.argmin(0)]


def temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """What logits (clips, 13) have to be divided by to be as sure as they are right.

    Least cross-entropy on these clips (Guo et al., 2017). No decision at 0.5 changes.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        cooled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, cooled) - truth * cooled))

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def reliability(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Of all answers of about one probability: how many are right to say yes.

    A row a bin of equal width that holds any: `probability` (their mean), `there` (the share of
    them whose effect is on the clip), `share` (of all answers).
    """
    p, t = probability.ravel(), truth.ravel()
    which = np.minimum((p * bins).astype(int), bins - 1)
    rows = [
        {"probability": p[k].mean(), "there": t[k].mean(), "share": k.mean()}
        for k in (which == b for b in range(bins))
        if k.any()
    ]
    return pd.DataFrame(rows)


def calibration_error(truth: np.ndarray, probability: np.ndarray) -> float:
    """Expected calibration error: mean distance of the two in `reliability`, by share."""
    table = reliability(truth, probability)
    return float((table.share * (table.probability - table.there).abs()).sum())


def confusions(truth: np.ndarray, said: np.ndarray) -> pd.DataFrame:
    """(13, 13): of the clips where the row's effect was missed, the share in which the column's was
    said without being there.
    """
    missed, extra = (truth > 0) & (said == 0), (truth == 0) & (said > 0)
    share = missed.T.astype(float) @ extra / np.maximum(missed.sum(0), 1)[:, None]
    return pd.DataFrame(share, index=effects.NAMES, columns=effects.NAMES)
