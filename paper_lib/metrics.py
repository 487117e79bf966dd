"""Scores with their support, interval and chance. Notebooks 02 to 05; Section 2.3.4 of the paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from sklearn.metrics import average_precision_score, f1_score, silhouette_score
from threadpoolctl import threadpool_limits

from . import effects, keyed


def scores(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Micro-F1 (Eq. 6) and macro-F1 (Eq. 7) of 0/1 arrays (clips, 13). A class never said and never true scores 0."""
    micro, macro = (f1_score(truth, said, average=a, zero_division=0) for a in ("micro", "macro"))
    return {"micro_f1": float(micro), "macro_f1": float(macro)}


def per_class(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """(13,) F1 of each effect."""
    return f1_score(truth, said, average=None, zero_division=0)


def mean_average_precision(truth: np.ndarray, probability: np.ndarray) -> float:
    """Average precision over all thresholds, averaged over the classes that occur; sees progress that F1 at 0.5 is blind to."""
    there = truth.sum(0) > 0
    return float(average_precision_score(truth[:, there], probability[:, there], average="macro"))


def counts(truth: np.ndarray, said: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """(recordings, 3, 13): true positives, false positives, false negatives of each recording."""
    truth, said = truth.astype(bool), said.astype(bool)
    each = np.stack([truth & said, ~truth & said, truth & ~said], axis=1).astype(float)
    _, group = np.unique(recordings, return_inverse=True)
    out = np.zeros((group.max() + 1, 3, truth.shape[1]))
    np.add.at(out, group, each)
    return out


def f1_of(tp, fp, fn):
    return np.divide(2 * tp, 2 * tp + fp + fn, out=np.zeros_like(tp), where=(2 * tp + fp + fn) > 0)


def intervals(truth: np.ndarray, said: np.ndarray, recordings: np.ndarray, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """95 % percentile bootstrap intervals over recordings (clips of one recording are not independent).

    Returns micro_f1 and macro_f1 as (2,) and per_class as (2, 13): lower and upper end.
    """
    each = counts(truth, said, recordings)
    picks = keyed(seed, "bootstrap").integers(len(each), size=(resamples, len(each)))
    tp, fp, fn = np.moveaxis(each[picks].sum(1), 1, 0)
    by_class = f1_of(tp, fp, fn)
    micro = f1_of(tp.sum(1), fp.sum(1), fn.sum(1))
    ends = lambda x: np.percentile(x, [2.5, 97.5], axis=0)
    return {"micro_f1": ends(micro), "macro_f1": ends(by_class.mean(1)), "per_class": ends(by_class)}


def paired_interval(a: np.ndarray, b: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(2,) ends of the 95 % interval of macro-F1 of `b` minus that of `a`, two `counts` of the same recordings, resampled alike for both."""
    picks = keyed(seed, "bootstrap").integers(len(a), size=(resamples, len(a)))
    first, second = (f1_of(*np.moveaxis(c[picks].sum(1), 1, 0)).mean(1) for c in (a, b))
    return np.percentile(second - first, [2.5, 97.5])


def chance(train_labels: np.ndarray, clips: int, seed: int) -> np.ndarray:
    """(clips, 13) guesses: each label drawn with its frequency in the training set."""
    return (keyed(seed, "chance").random((clips, train_labels.shape[1])) < train_labels.mean(0)).astype(int)


def majority(train_labels: np.ndarray, clips: int) -> np.ndarray:
    """(clips, 13): each label's more frequent value in the training set, always."""
    return np.tile((train_labels.mean(0) > 0.5).astype(int), (clips, 1))


def always(clips: int) -> np.ndarray:
    """(clips, 13): every effect claimed, always. F1 rewards saying yes: this scores 2 s / (s + n) with support s of n clips."""
    return np.ones((clips, len(effects.NAMES)), int)


def thresholds(truth: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """(13,) thresholds, each the best for its effect's F1 on these clips (a grid of 0.01 to 0.99; the middle one of equals)."""
    grid = np.linspace(0.01, 0.99, 99)
    score = np.array([per_class(truth, probability > t) for t in grid])
    return np.array([np.median(grid[column == column.max()]) for column in score.T])


def confusions(truth: np.ndarray, said: np.ndarray) -> pd.DataFrame:
    """(13, 13): of the clips where the row's effect was missed, the share in which the column's was said without being there."""
    missed, extra = (truth > 0) & (said == 0), (truth == 0) & (said > 0)
    share = missed.T.astype(float) @ extra / np.maximum(missed.sum(0), 1)[:, None]
    return pd.DataFrame(share, index=effects.NAMES, columns=effects.NAMES)


def neighbour_purity(points: np.ndarray, labels: np.ndarray, k: int = 5, apart: np.ndarray | None = None) -> float:
    """`neighbour_shares`, averaged over points."""
    return float(np.mean(neighbour_shares(points, labels, k, apart)))


def neighbour_shares(points: np.ndarray, labels: np.ndarray, k: int = 5, apart: np.ndarray | None = None) -> np.ndarray:
    """(n,) share of each point's `k` nearest neighbours (Euclidean, itself excluded) that carry its label.

    `apart`: (n,) groups; only neighbours of *other* groups count. NaN where some point then has none.
    """
    distance = cdist(points, points)
    barred = np.eye(len(points), dtype=bool) if apart is None else apart[:, None] == apart[None, :]
    distance[barred] = np.inf
    k = min(k, int((~barred).sum(1).min()))
    nearest = distance.argsort(axis=1, kind="stable")[:, :k]
    return (labels[nearest] == labels[:, None]).mean(axis=1) if k else np.full(len(points), np.nan)


def silhouette(points: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (-1 to 1) of labelled points; NaN where it is not defined (no label twice, or one label)."""
    if not 2 <= len(set(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(points, labels))


def tsne(points: np.ndarray, perplexity: float, seed: int, init: str = "pca") -> np.ndarray:
    """(n, 2) t-SNE map of (n, channels) points; on one thread, which is faster for so few and always the same."""
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init=init, random_state=seed, n_jobs=1).fit_transform(points)
