"""Who lies beside whom in an embedding, and a map of it (notebook 05)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits


def neighbour_purity(
    points: np.ndarray, labels: np.ndarray, k: int = 5, apart: np.ndarray | None = None
) -> float:
    """`neighbour_shares`, averaged over points."""
    return float(np.mean(neighbour_shares(points, labels, k, apart)))


def neighbour_shares(
    points: np.ndarray, labels: np.ndarray, k: int = 5, apart: np.ndarray | None = None
) -> np.ndarray:
    """(n,) share of each point's `k` nearest neighbours (Euclidean, itself excluded) that carry its
    label.

    `apart`: (n,) groups; only neighbours of *other* groups count. NaN where some point then has
    none.
    """
    distance = cdist(points, points)
    barred = np.eye(len(points), dtype=bool) if apart is None else apart[:, None] == apart[None, :]
    distance[barred] = np.inf
    k = min(k, int((~barred).sum(1).min()))
    nearest = distance.argsort(axis=1, kind="stable")[:, :k]
    return (labels[nearest] == labels[:, None]).mean(axis=1) if k else np.full(len(points), np.nan)


def silhouette(points: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (-1 to 1) of labelled points; NaN where it is not defined (no label twice, or
    one label).
    """
    if not 2 <= len(set(labels)) < len(labels):
        return float("nan")
    return float(silhouette_score(points, labels))


def tsne(points: np.ndarray, perplexity: float, seed: int, init: str = "pca") -> np.ndarray:
    """(n, 2) t-SNE map of (n, channels) points; on one thread, which is faster for so few and
    always the same.
    """
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init=init, random_state=seed, n_jobs=1).fit_transform(
            points
        )
