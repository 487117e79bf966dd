"""95 % intervals of a score: what other recordings, and other training seeds, would change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.random import generator_for
from . import scores


def counts(truth: np.ndarray, answers: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """(seeds, recordings, 3, 13): true positives, false positives, false negatives.

    answers: 0/1, (clips, 13), or (seeds, clips, 13) of several trainings.
    """
    answers = answers if answers.ndim == 3 else answers[None]
    return np.stack([scores.counts(truth, one, recordings) for one in answers])


def _f1(each: np.ndarray, recordings: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """(resamples, 14): F1 of each effect, averaged over the resample's seeds; the last is micro."""
    out = np.zeros((len(recordings), each.shape[-1] + 1))
    for i, (chosen, trained) in enumerate(zip(recordings, seeds, strict=True)):
        total = each[trained][:, chosen].sum(1)  # (seeds, 3, 13)
        tp, fp, fn = np.moveaxis(total, 1, 0)
        micro = scores.f1_of(tp.sum(-1), fp.sum(-1), fn.sum(-1))
        out[i] = np.append(scores.f1_of(tp, fp, fn).mean(0), micro.mean())
    return out


def _resampled(each: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """`_f1` of bootstrap draws: recordings, and where there are several, training seeds."""
    return _f1(each, *_draws(each.shape[1], len(each), resamples, seed))


def _draws(recordings: int, seeds: int, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each resample, which recordings and which training seeds are in it."""
    rng = generator_for(seed, "bootstrap")
    chosen = rng.integers(recordings, size=(resamples, recordings))
    return chosen, rng.integers(seeds, size=(resamples, seeds))


def ends(x: np.ndarray) -> np.ndarray:
    """Lower and upper end of the middle 95 % of resamples (the first axis)."""
    return np.percentile(x, [2.5, 97.5], axis=0)


def intervals(
    truth: np.ndarray, answers: np.ndarray, recordings: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Percentile bootstrap over recordings (clips of one are not independent) and training seeds.

    Args:
        truth: (clips, 13).
        answers: 0/1, (clips, 13) or (seeds, clips, 13).
        recordings: (clips,) which recording each clip is of.

    Returns:
        micro_f1 and macro_f1 as (2,) and per_class as (2, 13): lower and upper end.
    """
    f1 = _resampled(counts(truth, answers, recordings), resamples, seed)
    return {
        "micro_f1": ends(f1[:, -1]),
        "macro_f1": ends(f1[:, :-1].mean(1)),
        "per_class": ends(f1[:, :-1]),
    }


@dataclass(frozen=True)
class Paired:
    """Scores of several systems on the same recordings, and on the same resamples of these.

    What all of them find easy or hard falls out of a difference, and of its interval.
    """

    value: dict[str, float]
    drawn: dict[str, np.ndarray]  # (resamples,) each

    def of(self, *parts: tuple[float, str]) -> tuple[float, float, float]:
        """A sum of scores, each times a factor; and the ends of its interval."""
        low, high = ends(np.sum([factor * self.drawn[name] for factor, name in parts], axis=0))
        value = sum(factor * self.value[name] for factor, name in parts)
        return float(value), float(low), float(high)

    def more(self, one: str, than: str) -> tuple[float, float, float]:
        """By how much `one` scores more than another; and the ends of that interval."""
        return self.of((1, one), (-1, than))


def macro_f1(
    truth: np.ndarray,
    answers: dict[str, np.ndarray],
    recordings: np.ndarray,
    resamples: int,
    seed: int,
) -> Paired:
    """Macro-F1 of each system; its answers 0/1, (clips, 13) or (seeds, clips, 13)."""
    value = {name: mean_score(truth, said)["macro_f1"] for name, said in answers.items()}
    each = {name: counts(truth, said, recordings) for name, said in answers.items()}
    drawn = {name: _resampled(one, resamples, seed)[:, :-1].mean(1) for name, one in each.items()}
    return Paired(value, drawn)


def average_precision(
    truth: np.ndarray,
    probabilities: dict[str, np.ndarray],
    recordings: np.ndarray,
    resamples: int,
    seed: int,
) -> Paired:
    """Mean average precision of each system; its probabilities (seeds, clips, 13)."""
    _, group = np.unique(recordings, return_inverse=True)
    number, value, drawn = group.max() + 1, {}, {}
    for name, each in probabilities.items():
        chosen, trained = _draws(number, len(each), resamples, seed)
        times = np.stack([np.bincount(one, minlength=number) for one in chosen])[:, group]
        precision = np.stack([_precision(truth, one, times) for one in each])
        drawn[name] = np.take_along_axis(precision, trained.T, 0).mean(0)
        value[name] = float(np.mean([scores.mean_average_precision(truth, one) for one in each]))
    return Paired(value, drawn)


def _precision(truth: np.ndarray, probability: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(resamples,) `scores.mean_average_precision` of clips that count `times` (resamples, clips).

    (By the sums of one sorted order: to sort every resample takes a hundred times as long.)
    """
    each = []
    for j in np.flatnonzero(truth.sum(0)):
        order = np.argsort(-probability[:, j], kind="stable")
        ranked, hit = probability[order, j], truth[order, j] > 0
        last = np.searchsorted(-ranked, -ranked, side="right") - 1  # (equals share the last place)
        weight = times[:, order].astype(np.float32)
        found = weight * hit
        precision = found.cumsum(1)[:, last] / np.maximum(weight.cumsum(1)[:, last], 1)
        each.append((precision * found).sum(1) / np.maximum(found.sum(1), 1))
    return np.mean(each, axis=0)


def means(values: dict[str, np.ndarray], resamples: int, seed: int) -> Paired:
    """The mean of each system's values, (recordings,)."""
    number = len(next(iter(values.values())))
    chosen, _ = _draws(number, 1, resamples, seed)
    value = {name: float(one.mean()) for name, one in values.items()}
    return Paired(value, {name: one[chosen].mean(1) for name, one in values.items()})


def of_mean(
    values: np.ndarray, recordings: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """Ends of the interval of a mean over clips, e.g. of an error.

    values: (seeds, clips), of several trainings; recordings: (clips,).
    """
    _, group = np.unique(recordings, return_inverse=True)
    number = np.bincount(group)
    total = np.stack([np.bincount(group, one) for one in values])  # (seeds, recordings)
    chosen, trained = _draws(len(number), len(values), resamples, seed)
    sums = np.stack([total[t][:, c].sum(1).mean() for t, c in zip(trained, chosen, strict=True)])
    low, high = ends(sums / number[chosen].sum(1))
    return float(low), float(high)


def mean_score(truth: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Micro- and macro-F1, averaged over training seeds.

    answers: (clips, 13) or (seeds, clips, 13).
    """
    answers = answers if answers.ndim == 3 else answers[None]
    each = [scores.scores(truth, one) for one in answers]
    return {key: float(np.mean([e[key] for e in each])) for key in each[0]}


def mean_per_class(truth: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(13,) F1 of each effect, averaged over training seeds."""
    answers = answers if answers.ndim == 3 else answers[None]
    return np.mean([scores.per_class(truth, one) for one in answers], axis=0)
